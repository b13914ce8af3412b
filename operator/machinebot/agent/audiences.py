"""Which audiences the agent asks its platform for: an authority names them, and is not believed where others would be deceived.

Who has a token of this machine for another service is this machine there. An authority that was taken over, or is not ours, would
ask for such tokens.
"""

import re
from typing import Final

from machinebot.errors import Denied

UNEXPECTED: Final = "AudienceNotExpected"
"""Reason where an authority names an audience that it should not."""

ASKED: Final = frozenset({"azure", "gcp", "github"})
"""Methods whose proof asks the platform for a token with the authority's audience. What the others show was made before for the
audience that a person has told to the platform. (`azure` knows its few audiences besides.)"""

_ELSEWHERE: Final = frozenset(
    {
        "api://azureadtokenexchange",
        "https://kubernetes.default.svc",
        "https://kubernetes.default.svc.cluster.local",
        "kubernetes.default.svc",
        "pypi",
        "sigstore",
        "sts.amazonaws.com",
        "testpypi",
        "vault",
    }
)
"""What well-known services take, in small letters: AWS, Entra ID, API servers, PyPI, Sigstore, Vault. Not all that there are:
`onboarding.audience` leaves no other than the one that is written."""

_ELSEWHERE_BEGINS: Final = ("//iam.googleapis.com/", "https://github.com/", "https://iam.googleapis.com/")
"""Workload identity federation of Google Cloud; GitHub's own default, which whoever sets none takes."""

_ELSEWHERE_HOSTS: Final = (".apps.googleusercontent.com", ".cloudfunctions.net", ".run.app")
"""Ends of the hosts by which services in Google Cloud call themselves: they let in whom a machine's token names."""

_HOST: Final = re.compile("(?:https?://)?([^/:?#]*)")

_SHOWN: Final = 64
"""How much of an audience is shown, characters."""


def check_audience(method: str, offered: str, expected: str | None) -> None:
    """Whether a proof may be made for the audience that an authority names; before anything is asked of the platform.

    Args:
        method: The join method.
        offered: What the authority names.
        expected: `onboarding.audience`, or None where it is left out.

    Raises:
        Denied: It may not.
    """
    if expected is not None:
        if offered != expected:
            raise Denied(
                UNEXPECTED,
                f"the authority names the audience {offered[:_SHOWN]!r}, and onboarding.audience is {expected!r}: write there "
                "what the join token has as audience, or the authority's clusterName where it has none. If that is what you have "
                "written, this is not your authority",
            )
    elif method in ASKED and _is_elsewhere(offered.strip().casefold()):
        raise Denied(
            UNEXPECTED,
            f"the authority wants a token for {offered[:_SHOWN]!r}, by which another service would take it for this machine: let "
            "the join token have an audience of its own. If it must be this one, write it as onboarding.audience",
        )


def _is_elsewhere(audience: str) -> bool:
    host = _HOST.match(audience)
    return (
        audience in _ELSEWHERE
        or audience.startswith(_ELSEWHERE_BEGINS)
        or (host is not None and host[1].endswith(_ELSEWHERE_HOSTS))
    )
