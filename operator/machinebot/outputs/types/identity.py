"""`identity`: an SSH user certificate and an X.509 client certificate for one private key; the names are tbot's."""

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field

from machinebot.outputs.base import Material, OutputType
from machinebot.outputs.trust import certificates, known_hosts
from machinebot.policy.credential import Purpose, Wish
from machinebot.resources.meta import Model, written_as

_HOSTS: Final = written_as(
    r"^[A-Za-z0-9*?.:_\[\]-]+$", "must be a host pattern such as *.backup.internal, without commas or blanks; one entry for each"
)


class IdentitySettings(Model):
    """Settings of an `identity` output."""

    known_hosts: Annotated[tuple[Annotated[str, _HOSTS, Field(max_length=253)], ...], Field(max_length=64)] = Field(
        default=(),
        description=(
            "Host patterns, beside the cluster's own name and everything below it, for which `known_hosts` trusts the host CA."
        ),
    )


def ask(_settings: IdentitySettings, /) -> Wish:
    """SSH for people's servers, X.509 for the rest."""
    return Wish(purposes=frozenset({Purpose.SSH_USER, Purpose.IDENTITY}))


def render(settings: IdentitySettings, material: Material, /) -> Mapping[str, bytes]:
    """The keys of tbot's identity output, and the three of a `kubernetes.io/tls` Secret."""
    key, issued, trust = material.key, material.issued, material.trust
    ssh_certificate, certificate = issued.ssh_certificate or b"", issued.x509_certificate or b""
    patterns = dict.fromkeys((trust.cluster_name, f"*.{trust.cluster_name}", *settings.known_hosts))
    return {
        "key": key.openssh,
        "key.pub": key.authorized_key + b"\n",
        "key-cert.pub": ssh_certificate + b"\n",
        "tlscert": certificate,
        "known_hosts": known_hosts(trust.of(Purpose.SSH_HOST), tuple(patterns)),
        "tls.crt": certificate,
        "tls.key": key.pkcs8,
        "ca.crt": certificates(trust.of(Purpose.IDENTITY)),
    }


OUTPUT: Final = OutputType(
    name="identity",
    description=(
        "An SSH user certificate and an X.509 client certificate: key, key.pub, key-cert.pub, tlscert, known_hosts, tls.crt, "
        "tls.key, ca.crt."
    ),
    settings=IdentitySettings,
    ask=ask,
    render=render,
    keys=frozenset({"key", "key.pub", "key-cert.pub", "tlscert", "known_hosts", "tls.crt", "tls.key", "ca.crt"}),
    private_key="tls.key",
    certificates=("key-cert.pub", "tlscert", "tls.crt"),
)
