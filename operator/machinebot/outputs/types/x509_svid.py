"""`x509SVID`: an X.509 certificate with a SPIFFE ID, for workloads that speak mutual TLS (X509-SVID); the names are tbot's."""

from collections.abc import Mapping
from typing import Annotated, Final, Self

from pydantic import ConfigDict, Field, model_validator

from machinebot.outputs.base import Material, OutputType, Parts
from machinebot.outputs.settings import DNSNames, SPIFFEPath
from machinebot.outputs.trust import certificates
from machinebot.policy.credential import Purpose, Usage, Wish
from machinebot.policy.names import NameKind
from machinebot.resources.meta import Model, Rule, rules
from machinebot.resources.output import SecretKey

_SVID: Final = "svid.pem"
_KEY: Final = "svid_key.pem"
_BUNDLE: Final = "svid_bundle.pem"

_DIFFERENT: Final = (
    f"the three keys of the Secret need three names: give svid, key and bundle (by default {_SVID}, {_KEY} and {_BUNDLE}) each "
    "another one"
)


def _different() -> Rule:
    """No two names are the same, the defaults included: the API server fills in none."""
    names = {"svid": _SVID, "key": _KEY, "bundle": _BUNDLE}
    svid, key, bundle = (f"(has(self.{field}) ? self.{field} : '{default}')" for field, default in names.items())
    return Rule(f"{svid} != {key} && {key} != {bundle} && {svid} != {bundle}", _DIFFERENT)


class X509SVIDKeys(Model):
    """Keys of the Secret."""

    model_config = ConfigDict(json_schema_extra=rules(_different()))

    svid: Annotated[SecretKey, Field(description="Holds the certificate.")] = _SVID
    key: Annotated[SecretKey, Field(description="Holds the private key.")] = _KEY
    bundle: Annotated[SecretKey, Field(description="Holds the CA certificates of the trust domain.")] = _BUNDLE

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len({self.svid, self.key, self.bundle}) < len(type(self).model_fields):
            raise ValueError(_DIFFERENT)
        return self


class X509SVIDSettings(Model):
    """Settings of an `x509SVID` output."""

    path: SPIFFEPath | None = Field(
        default=None,
        description=(
            "Path of the SPIFFE ID, such as /ns/ci/web. Default: the bot's own, /ns/NAMESPACE/bot/NAME. Either must fit "
            "`allow.spiffePaths` of one of the roles."
        ),
    )
    dns_names: DNSNames = Field(
        default=(),
        description="DNS names beside the SPIFFE ID; each must fit `allow.dnsNames` of one of the roles.",
    )
    keys: X509SVIDKeys = Field(
        default_factory=X509SVIDKeys,
        description="Names of the keys of the Secret.",
    )


def ask(settings: X509SVIDSettings, /) -> Wish:
    """A certificate for both ends of a connection."""
    paths = () if settings.path is None else (settings.path,)
    return Wish(usages=frozenset({Usage.WORKLOAD}), names={NameKind.SPIFFE_PATHS: paths, NameKind.DNS_NAMES: settings.dns_names})


def render(settings: X509SVIDSettings, material: Material, /) -> Mapping[str, bytes]:
    """SVID, key and bundle."""
    return {
        settings.keys.svid: material.issued.x509_certificate or b"",
        settings.keys.key: material.key.pkcs8,
        settings.keys.bundle: certificates(material.trust.of(Purpose.WORKLOAD)),
    }


def keys(settings: X509SVIDSettings, /) -> frozenset[str]:
    """As the settings name them."""
    return frozenset({settings.keys.svid, settings.keys.key, settings.keys.bundle})


def parts(settings: X509SVIDSettings, data: Mapping[str, bytes], /) -> Parts:
    """The key and its certificate."""
    return Parts(private_key=data[settings.keys.key], certificates={settings.keys.svid: data[settings.keys.svid]})


OUTPUT: Final = OutputType(
    name="x509SVID",
    description="An X.509 certificate with a SPIFFE ID, for both ends of mutual TLS: svid.pem, svid_key.pem, svid_bundle.pem.",
    settings=X509SVIDSettings,
    ask=ask,
    render=render,
    keys=keys,
    parts=parts,
)
