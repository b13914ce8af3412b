"""`terraform_cloud`: the workload identity token of a run (developer.hashicorp.com, "Workload identity tokens")."""

from collections.abc import Mapping
from typing import Any, Final

from machinebot.agent.proofs.base import Wanted, from_environment

ENVIRONMENT: Final = "TFC_WORKLOAD_IDENTITY_TOKEN"


def prove(settings: Mapping[str, Any], wanted: Wanted) -> dict[str, str]:
    """See `Prove`."""
    tag = settings.get("tag")
    suffix = "" if tag is None else f"_{tag}"
    hint = f"set TFC_WORKLOAD_IDENTITY_AUDIENCE{suffix}={wanted.audience or wanted.cluster_name} in the workspace"
    return {"token": from_environment(f"{ENVIRONMENT}{suffix}", hint)}
