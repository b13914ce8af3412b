"""The clouds of Azure: what each calls the services that the join method `azure` has to do with."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Cloud:
    """One cloud.

    Attributes:
        issuer: Host of the issuer of access tokens; the tenant follows as path.
        manager: Host of the Resource Manager.
        metadata: DNS name that the signer of attested data has, or a name one label below it.
    """

    issuer: str
    manager: str
    metadata: str

    @property
    def audience(self) -> str:
        """Audience of access tokens for the Resource Manager."""
        return f"https://{self.manager}/"


CLOUDS: Final[Mapping[str, Cloud]] = MappingProxyType(
    {
        "public": Cloud("sts.windows.net", "management.azure.com", "metadata.azure.com"),
        "usGovernment": Cloud("sts.windows.net", "management.usgovcloudapi.net", "metadata.azure.us"),
        "china": Cloud("sts.chinacloudapi.cn", "management.chinacloudapi.cn", "metadata.azure.cn"),
    }
)
"""Every cloud that is known, by its name in settings."""
