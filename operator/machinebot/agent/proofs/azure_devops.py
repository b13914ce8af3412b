"""`azure_devops`: the ID token of a pipeline (Microsoft, "Oidctoken - Create", api-version 7.1)."""

from collections.abc import Mapping
from typing import Any, Final

from machinebot.agent.proofs.base import Wanted, from_environment
from machinebot.agent.proofs.platforms import token_from

API_VERSION: Final = "7.1"


def prove(_settings: Mapping[str, Any], _wanted: Wanted) -> dict[str, str]:
    """See `Prove`. Azure fixes the audience. A token of a service connection would not say which pipeline uses it."""
    url = from_environment("SYSTEM_OIDCREQUESTURI", "it is set in every job of Azure Pipelines: is this one?")
    password = from_environment(
        "SYSTEM_ACCESSTOKEN", "map it into the step by `env: {SYSTEM_ACCESSTOKEN: $(System.AccessToken)}`"
    )
    asked = f"{url}{'&' if '?' in url else '?'}api-version={API_VERSION}"
    headers = {"Authorization": f"Bearer {password}"}
    return {"token": token_from(asked, "oidcToken", headers, platform="Azure DevOps", body=b"{}")}
