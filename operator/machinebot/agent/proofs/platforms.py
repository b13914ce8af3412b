"""Asks a platform's own HTTPS for a token, with the password that it gave to the job. Bounded; redirects are not followed."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from pydantic_core import from_json

from machinebot.agent.proofs.base import UNAVAILABLE, checked
from machinebot.client.transport import Address, context, send
from machinebot.errors import Invalid, MachinebotError, Unavailable

TIMEOUT: Final = 20.0
"""Seconds for one request."""

_OK: Final = 200


def token_from(url: str, field: str, headers: Mapping[str, str], *, platform: str, body: bytes | None = None) -> str:
    """The token in the answer of a platform.

    Args:
        url: Address that the platform gave to the job, with query.
        field: Where in the JSON of the answer the token stands.
        headers: With the password of the job.
        platform: Its name, for messages.
        body: JSON to be sent by POST; None for a GET.

    Raises:
        Invalid: The address is none.
        Unavailable: There is no answer, or one without a token.
    """
    parts = urlsplit(url)
    try:
        address = Address.of(f"{parts.scheme}://{parts.netloc}")
    except Invalid as error:
        raise Invalid(UNAVAILABLE, f"the address that {platform} gives for tokens is none of https://") from error
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    try:
        answer = send(address, context(None, None), path, body=body, headers=headers, timeout=TIMEOUT)
    except MachinebotError as error:
        raise Unavailable(UNAVAILABLE, f"{platform} gives no token: {error.message}") from error
    if answer.status != _OK:
        raise Unavailable(UNAVAILABLE, f"{platform} gives no token, it answers {answer.status}: may this job have one?")
    try:
        found = from_json(answer.body)[field]
    except (ValueError, LookupError, TypeError):
        found = None
    if not isinstance(found, str):
        raise Unavailable(UNAVAILABLE, f"{platform} gives no token: there is no {field!r} in its answer")
    return checked(found, f"the answer of {platform}", "try again")
