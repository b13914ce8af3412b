"""`token`: the secret of the join token, in a file or in the environment; never an argument, which everybody sees."""

from collections.abc import Mapping
from typing import Any, Final

from machinebot.agent.proofs.base import Wanted, from_environment, from_file, text

ENVIRONMENT: Final = "MACHINEBOT_JOIN_SECRET"

_HINT: Final = "put the secret there that `machinebot tokens add` wrote to --secret-file"


def prove(settings: Mapping[str, Any], _wanted: Wanted) -> dict[str, str]:
    """See `Prove`."""
    if settings.get("secretFile") is not None:
        return {"secret": from_file(str(settings["secretFile"]), _HINT)}
    return {"secret": from_environment(text(settings, "env", ENVIRONMENT), _HINT)}
