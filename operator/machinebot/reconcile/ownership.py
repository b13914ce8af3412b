"""Whose a Secret is: an output touches only the one that says that it belongs to it."""

from machinebot.errors import Denied
from machinebot.kube.resources import SELECTOR
from machinebot.kube.secrets import StoredSecret
from machinebot.outputs.registry import MachineOutput
from machinebot.resources.meta import READY, find_condition


def check_ours(output: MachineOutput, secret: StoredSecret) -> None:
    """A Secret is ours to touch only with our label and the output's UID as its controlling owner.

    Raises:
        Denied: It is not.
    """
    if secret.managed and secret.owner_uid == output.metadata.uid and not secret.deleting:
        return
    if secret.deleting:
        raise Denied("SecretTerminating", f"the Secret {secret.name!r} is being deleted; a new one is made then")
    if secret.managed and secret.owner_uid is not None:
        raise Denied(
            "SecretConflict",
            f"the Secret {secret.name!r} belongs to another output, or to an earlier one of this name and waits for the garbage "
            "collector: where it stays, choose another secret.name",
        )
    if secret.owner_uid == output.metadata.uid:
        raise Denied(
            "SecretConflict",
            f"the Secret {secret.name!r} lost the label {SELECTOR}, without which the operator touches no Secret: put it back, "
            "or delete the Secret",
        )
    raise Denied(
        "SecretConflict",
        f"the Secret {secret.name!r} exists and is not this output's: choose another secret.name, or delete the Secret",
    )


def was_in_the_way(output: MachineOutput) -> bool:
    """Whether a Secret that is not ours had the name at the last look: then it is read before anything is signed again."""
    ready = find_condition(output.status.conditions, READY)
    return ready is not None and ready.reason in ("SecretConflict", "SecretTerminating")
