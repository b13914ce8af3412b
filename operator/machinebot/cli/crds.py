"""The CRDs of every kind, from the models."""

from collections.abc import Mapping

from machinebot.joins import registry as joins
from machinebot.outputs import registry as outputs
from machinebot.resources import authority, bot, crdgen, join_token, lock, output, role


def all_crds() -> Mapping[str, str]:
    """File name to YAML text."""
    models = (
        (authority.KIND, authority.MachineAuthority),
        (role.KIND, role.MachineRole),
        (bot.KIND, bot.MachineBot),
        (output.KIND, outputs.schema_model()),
        (join_token.KIND, joins.schema_model()),
        (lock.KIND, lock.MachineLock),
    )
    return crdgen.all_crds(models)
