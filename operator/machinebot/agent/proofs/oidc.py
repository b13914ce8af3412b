"""`oidc`: an ID token of any other platform, in a file that it renews, or in the environment."""

from collections.abc import Mapping
from typing import Any, Final

from machinebot.agent.proofs.base import Wanted, from_environment, from_file, text

ENVIRONMENT: Final = "MACHINEBOT_OIDC_TOKEN"


def prove(settings: Mapping[str, Any], wanted: Wanted) -> dict[str, str]:
    """See `Prove`."""
    hint = f"let your platform put an ID token there, with the audience {wanted.audience or wanted.cluster_name}"
    if settings.get("tokenFile") is not None:
        return {"token": from_file(str(settings["tokenFile"]), hint)}
    return {"token": from_environment(text(settings, "tokenEnv", ENVIRONMENT), hint)}
