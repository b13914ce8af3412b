"""`github`: the ID token of a workflow's job, asked for with our audience (docs.github.com, "OpenID Connect reference")."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from machinebot.agent.proofs.base import Wanted, from_environment
from machinebot.agent.proofs.platforms import token_from

_HINT = "give the job `permissions: {id-token: write}`"


def prove(_settings: Mapping[str, Any], wanted: Wanted) -> dict[str, str]:
    """See `Prove`."""
    url = from_environment("ACTIONS_ID_TOKEN_REQUEST_URL", _HINT)
    password = from_environment("ACTIONS_ID_TOKEN_REQUEST_TOKEN", _HINT)
    audience = quote(wanted.audience or wanted.cluster_name, safe="")
    asked = f"{url}{'&' if '?' in url else '?'}audience={audience}"
    return {"token": token_from(asked, "value", {"Authorization": f"Bearer {password}"}, platform="GitHub")}
