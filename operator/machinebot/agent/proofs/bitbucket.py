"""`bitbucket`: the ID token of a step (support.atlassian.com, "Integrate Pipelines with resource servers using OIDC")."""

from collections.abc import Mapping
from typing import Any

from machinebot.agent.proofs.base import Wanted, from_environment


def prove(_settings: Mapping[str, Any], _wanted: Wanted) -> dict[str, str]:
    """See `Prove`. Bitbucket fixes the audience: the workspace."""
    return {"token": from_environment("BITBUCKET_STEP_OIDC_TOKEN", "give the step `oidc: true`")}
