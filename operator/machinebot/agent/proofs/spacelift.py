"""`spacelift`: the ID token of a run (docs.spacelift.io, "OpenID Connect (OIDC)")."""

from collections.abc import Mapping
from typing import Any

from machinebot.agent.proofs.base import Wanted, from_environment


def prove(_settings: Mapping[str, Any], _wanted: Wanted) -> dict[str, str]:
    """See `Prove`. Spacelift fixes the audience: the host of the account."""
    return {"token": from_environment("SPACELIFT_OIDC_TOKEN", "Spacelift sets it in every run of a paid account: is this one?")}
