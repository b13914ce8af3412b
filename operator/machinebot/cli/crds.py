"""The CRDs of every kind, from the models."""

from collections.abc import Mapping

from machinebot.outputs.registry import schema_model
from machinebot.resources import authority, bot, crdgen, output, role


def all_crds() -> Mapping[str, str]:
    """File name to YAML text."""
    models = (
        (authority.KIND, authority.MachineAuthority),
        (role.KIND, role.MachineRole),
        (bot.KIND, bot.MachineBot),
        (output.KIND, schema_model()),
    )
    return crdgen.all_crds(models)
