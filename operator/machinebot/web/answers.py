"""What every answer of our HTTPS has in common: one shape for errors, the headers, and the condition on an ETag."""

import hashlib
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from aiohttp import ETag, web

from machinebot.errors import Conflict, Denied, Invalid, MachinebotError, NotFound

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

RETRY_AFTER: Final = 5
"""Seconds that who was told 503 is asked to wait: an authority is there some seconds after it was made."""

_STATUS: Final[tuple[tuple[type[MachinebotError], int], ...]] = (
    (Invalid, 400),
    (Denied, 403),
    (NotFound, 404),
    (Conflict, 409),
)
"""The status of each kind of error, the narrow ones first; what is none of them is 503."""

KEPT_OPEN: Final = "/v1/"
"""Beginning of the paths whose connections stay open for the next request."""

_ERROR: Final = 400
_NOT_FOUND: Final = 404
_METHOD_NOT_ALLOWED: Final = 405


@web.middleware
async def uniform(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns every failure into the one shape, and closes the connection after each answer but those of the join API.

    A verifier asks once in minutes or hours. With one request a connection nobody holds one open, and no answer is lost in the
    moment in which one side closes and the other asks. A join is two or three requests, and the handshake costs more than they.
    """
    try:
        response = await handler(request)
    except MachinebotError as error:
        response = _of_ours(error)
    except web.HTTPException as error:
        response = _of_aiohttp(error)
    except Exception:
        log.exception("request failed", extra={"path": request.path[:256]})
        response = problem(500, "Crashed", "something went wrong here: the operator's log says what")
    response.headers["Server"] = "machinebot"
    response.headers["X-Content-Type-Options"] = "nosniff"
    if not request.path.startswith(KEPT_OPEN) or response.status >= _ERROR:
        response.force_close()
    return response


def problem(status: int, reason: str, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """An error: a stable CamelCase word, and a sentence for a person."""
    return web.json_response(
        {"reason": reason, "message": message}, status=status, headers={"Cache-Control": "no-store", **(headers or {})}
    )


def document(request: web.Request, body: bytes, content_type: str, max_age: timedelta) -> web.Response:
    """A public document, or 304 where the client has it already (RFC 9110, section 13.1.2)."""
    tag = ETag(value=hashlib.sha256(body).hexdigest())
    headers = {"Cache-Control": f"public, max-age={int(max_age.total_seconds())}"}
    # The comparison is the weak one: a proxy that compresses makes a strong tag weak.
    if any(known.value in ("*", tag.value) for known in request.if_none_match or ()):
        response = web.Response(status=304, headers=headers)
    else:
        response = web.Response(body=body, headers={**headers, "Content-Type": content_type})
    response.etag = tag
    return response


def _of_ours(error: MachinebotError) -> web.Response:
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), None)
    if status is None:
        pause = RETRY_AFTER if error.retry_after is None else max(1, math.ceil(error.retry_after))  # type: ignore[attr-defined]
        return problem(503, error.reason, error.message, {"Retry-After": str(pause)})
    return problem(status, error.reason, error.message)


def _of_aiohttp(error: web.HTTPException) -> web.Response:
    kept: dict[str, Any] = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    if error.status == _NOT_FOUND:
        return problem(error.status, "NotFound", "there is nothing at this address: /trust lists what there is")
    if error.status == _METHOD_NOT_ALLOWED:
        return problem(error.status, "MethodNotAllowed", f"use {error.headers.get('Allow', 'GET')} here", kept)
    return problem(error.status, "BadRequest", error.reason, kept)
