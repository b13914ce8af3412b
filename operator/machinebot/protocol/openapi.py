"""The OpenAPI document of the join API (OpenAPI 3.1), generated from its messages."""

import json
from functools import lru_cache
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from machinebot import __version__
from machinebot.protocol.messages import (
    CHALLENGE_PATH,
    ISSUE_PATH,
    JOIN_PATH,
    OPENAPI_PATH,
    RENEW_PATH,
    TRUST_PATH,
    ChallengeAnswer,
    ChallengeRequest,
    IssueAnswer,
    IssueRequest,
    JoinAnswer,
    JoinRequest,
    Message,
    Problem,
    RenewRequest,
    Request,
    TrustAnswer,
)

_POSTS: Final[tuple[tuple[str, type[Request], type[Message], str, bool], ...]] = (
    (CHALLENGE_PATH, ChallengeRequest, ChallengeAnswer, "What a join takes.", False),
    (JOIN_PATH, JoinRequest, JoinAnswer, "Join by a proof.", False),
    (RENEW_PATH, RenewRequest, JoinAnswer, "The next identity of a renewable instance.", True),
    (ISSUE_PATH, IssueRequest, IssueAnswer, "Credentials for the instance.", True),
)
"""Path, request, answer, summary, and whether it takes a client certificate."""

_PROBLEMS: Final = {
    "400": "What was sent cannot be read, or cannot work: change it.",
    "403": "A rule forbids it: the message names the rule and the way out.",
    "404": "There is no such authority.",
    "408": "The message did not come in time: send it again.",
    "409": "Another client was quicker: send the same again.",
    "413": "The message is too long.",
    "429": "Too many requests of this address or this join token: ask again after Retry-After.",
    "503": "Something is away: ask again after Retry-After.",
}


@lru_cache
def document() -> bytes:
    """The document as JSON, the same at every call."""
    models: list[type[Message]] = [Problem, TrustAnswer, *(each for _, asked, answer, *_ in _POSTS for each in (asked, answer))]
    _, schemas = models_json_schema(
        [(model, "validation") for model in dict.fromkeys(models)], by_alias=True, ref_template="#/components/schemas/{model}"
    )
    body = {
        "openapi": "3.1.0",
        "info": {
            "title": "Machinebot join API",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Bots outside of the cluster join, and get credentials. Every replica of the operator serves it.",
        },
        "paths": {
            **{path: {"post": _post(*rest)} for path, rest in ((row[0], row[1:]) for row in _POSTS)},
            TRUST_PATH: {"get": _get("The trust bundle of the authority `default`.", "TrustAnswer")},
            f"/authorities/{{authority}}{TRUST_PATH}": {
                "get": {
                    **_get("The trust bundle of an authority.", "TrustAnswer"),
                    "parameters": [{"name": "authority", "in": "path", "required": True, "schema": {"type": "string"}}],
                }
            },
            OPENAPI_PATH: {"get": {"summary": "This document.", "responses": {"200": {"description": "It."}}}},
        },
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"identity": {"type": "mutualTLS", "description": "The identity from a join."}},
        },
    }
    return json.dumps(body, indent=2, ensure_ascii=False).encode() + b"\n"


def _post(asked: type[Request], answer: type[Message], summary: str, identity: bool) -> dict[str, Any]:  # noqa: FBT001 - a row
    return {
        "summary": summary,
        **({"security": [{"identity": []}]} if identity else {}),
        "requestBody": {"required": True, "content": _content(asked.__name__)},
        "responses": {"200": {"description": "Done.", "content": _content(answer.__name__)}, **_problems()},
    }


def _get(summary: str, answer: str) -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {"200": {"description": "Here.", "content": _content(answer)}, **_problems("404", "503")},
    }


def _problems(*codes: str) -> dict[str, Any]:
    return {code: {"description": _PROBLEMS[code], "content": _content("Problem")} for code in codes or _PROBLEMS}


def _content(model: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{model}"}}}
