"""What a request must fulfil before it is signed, and what was signed must fulfil before it is handed out.

The signed bytes are parsed again and held against the request, so that neither a mistake of ours nor one of the library gets
out (boulder's lints, SPIRE's credvalidator). Every check is a row; a new one is a row and a row of the tests.
"""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final, TypeVar

import jwt

from machinebot.authority.generations import Generation
from machinebot.authority.keys import UNREADABLE, spki
from machinebot.authority.profiles import Request, SSHRequest, TokenRequest, X509Request
from machinebot.errors import Denied
from machinebot.policy.credential import AnchorState, Purpose

_SignedT = TypeVar("_SignedT")
_RequestT = TypeVar("_RequestT", X509Request, SSHRequest, TokenRequest)


REASON: Final = "CertificateRefused"
"""Reason where a check fails: always a defect, never what a person wrote."""


def check_request(request: Request, issuer: Generation) -> None:
    """Holds what shall be signed against its profile and CA.

    Raises:
        Denied: A check fails; nothing was signed.
    """
    for check in REQUEST_CHECKS:
        if not check(request, issuer):
            raise refused(request.profile.purpose, check.__name__, "nothing was signed")


def hold(
    load: Callable[[], _SignedT],
    checks: Iterable[Callable[[_SignedT, _RequestT, Generation], bool]],
    request: _RequestT,
    issuer: Generation,
) -> _SignedT:
    """Reads what was signed and holds it against what was asked for.

    Args:
        load: Reads it; what it raises is a failed check.
        checks: In their order; what one raises is a failed check too.
        request: What was asked for.
        issuer: The CA that signed.

    Raises:
        Denied: A check fails; it must not be handed out.
    """
    failed = "readable"
    try:
        signed = load()
        for check in checks:
            failed = check.__name__
            if not check(signed, request, issuer):
                raise refused(request.profile.purpose, failed, "it was not handed out")
    except (*UNREADABLE, jwt.InvalidTokenError) as error:
        raise refused(request.profile.purpose, failed, "it was not handed out") from error
    return signed


def refused(purpose: Purpose, check: str, outcome: str) -> Denied:
    """The refusal by a check, which is named as it reads in words."""
    name = check.strip("_").replace("_", " ")
    return Denied(REASON, f"a credential of the CA {purpose.value} failed the check `{name}` and {outcome}: report this defect")


def seconds(moment: datetime) -> int:
    """Whole seconds since 1970, as SSH certificates and JWTs have them."""
    return int(moment.timestamp())


def _ca_of_purpose(request: Request, issuer: Generation) -> bool:
    return issuer.purpose is request.profile.purpose


def _ca_is_active(_request: Request, issuer: Generation) -> bool:
    return issuer.state is AnchorState.ACTIVE


def _serial_in_range(request: Request, _issuer: Generation) -> bool:
    return 0 < request.stamp.serial < 2**63


def _span(request: Request, _issuer: Generation) -> bool:
    return timedelta(0) < request.stamp.not_after - request.stamp.not_before <= request.profile.ceiling


def _ends_before_its_ca(request: Request, issuer: Generation) -> bool:
    return request.stamp.not_after <= issuer.not_after


def _key_is_no_ca(request: Request, issuer: Generation) -> bool:
    return isinstance(request, TokenRequest) or spki(request.public_key) != issuer.key.spki


REQUEST_CHECKS: Final[tuple[Callable[[Request, Generation], bool], ...]] = (
    _ca_of_purpose,
    _ca_is_active,
    _serial_in_range,
    _span,
    _ends_before_its_ca,
    _key_is_no_ca,
)
"""What every request must fulfil."""
