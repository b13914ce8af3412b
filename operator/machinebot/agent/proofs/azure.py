"""`azure`: the document that Azure's metadata service signs, and an access token of the machine's managed identity.

Settings: `metadataURL` (default http://169.254.169.254), `clientID` of a user-assigned identity (default: the machine's own).
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from machinebot.agent import metadata
from machinebot.agent.proofs.base import UNAVAILABLE, Wanted, checked, text
from machinebot.errors import Denied, Unavailable
from machinebot.joins.azure_clouds import CLOUDS

METADATA: Final = "http://169.254.169.254"
"""Where the metadata service is, in every virtual machine of every cloud of Azure."""

_AUDIENCES: Final = frozenset(cloud.audience for cloud in CLOUDS.values())
_HEADERS: Final = {"Metadata": "true"}
_HINT: Final = "the agent must run in a virtual machine of Azure that has a managed identity"


def prove(settings: Mapping[str, Any], wanted: Wanted) -> dict[str, str]:
    """See `base.Prove`. Tokens are asked for the Resource Manager alone, whatever audience an authority names."""
    audience = wanted.audience or ""
    if audience not in _AUDIENCES:
        raise Denied("WrongAudience", f"the authority wants an access token for {audience[:64]!r}, which is no Resource Manager")
    base = text(settings, "metadataURL", METADATA)
    document = {"api-version": "2020-09-01", "nonce": wanted.challenge or ""}
    identity = {"api-version": "2018-02-01", "resource": audience}
    client = text(settings, "clientID", "")
    if client:
        identity["client_id"] = client
    return {
        "attestedData": _field(base, "/metadata/attested/document", document, "signature"),
        "accessToken": _field(base, "/metadata/identity/oauth2/token", identity, "access_token"),
    }


def _field(base: str, path: str, query: Mapping[str, str], name: str) -> str:
    body = metadata.get(base, path, query, headers=_HEADERS, hint=_HINT)
    try:
        value = json.loads(body)[name]
    except (ValueError, LookupError, TypeError):
        value = None
    if not isinstance(value, str):
        raise Unavailable(UNAVAILABLE, f"the metadata service at {base} answers {path} without {name}")
    return checked(value, f"{name} at {path}", _HINT)
