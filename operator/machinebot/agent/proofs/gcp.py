"""`gcp`: an identity token of the machine's service account, from Google Cloud's metadata service.

Settings: `metadataURL` (default http://metadata.google.internal), `serviceAccount` (default: default).
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from machinebot.agent import metadata
from machinebot.agent.proofs.base import Wanted, checked, text

METADATA: Final = "http://metadata.google.internal"
"""Where the metadata service is, by the name that every machine of Google Cloud resolves."""

_HINT: Final = "the agent must run in Google Cloud, on a machine or in a pod that has a service account"


def prove(settings: Mapping[str, Any], wanted: Wanted) -> dict[str, str]:
    """See `base.Prove`. The token says in full which machine it is of (`format=full`)."""
    account = quote(text(settings, "serviceAccount", "default"), safe="@")
    path = f"/computeMetadata/v1/instance/service-accounts/{account}/identity"
    body = metadata.get(
        text(settings, "metadataURL", METADATA),
        path,
        {"audience": wanted.audience or wanted.cluster_name, "format": "full"},
        headers={"Metadata-Flavor": "Google"},
        hint=_HINT,
    )
    return {"token": checked(body.decode("ascii", errors="replace"), "the metadata service's token", _HINT)}
