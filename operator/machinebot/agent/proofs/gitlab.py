"""`gitlab`: an ID token, which `id_tokens` of the job puts into a variable (docs.gitlab.com, "OpenID Connect ID tokens")."""

from collections.abc import Mapping
from typing import Any, Final

from machinebot.agent.proofs.base import Wanted, from_environment, text

ENVIRONMENT: Final = "MACHINEBOT_GITLAB_JWT"


def prove(settings: Mapping[str, Any], wanted: Wanted) -> dict[str, str]:
    """See `Prove`."""
    name = text(settings, "tokenEnv", ENVIRONMENT)
    audience = wanted.audience or wanted.cluster_name
    return {"token": from_environment(name, f"give the job `id_tokens: {{{name}: {{aud: {audience}}}}}`")}
