"""`circleci`: the ID token of a job; the one of version 2 where there is one (circleci.com, "OpenID Connect tokens")."""

import os
from collections.abc import Mapping
from typing import Any, Final

from machinebot.agent.proofs.base import Wanted, from_environment

NEWER: Final = "CIRCLE_OIDC_TOKEN_V2"
OLDER: Final = "CIRCLE_OIDC_TOKEN"


def prove(_settings: Mapping[str, Any], _wanted: Wanted) -> dict[str, str]:
    """See `Prove`. CircleCI fixes the audience: the id of the organization."""
    name = NEWER if os.environ.get(NEWER) else OLDER
    return {"token": from_environment(name, "CircleCI sets it in every job: is this one?")}
