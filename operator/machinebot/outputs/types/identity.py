"""`identity`: an SSH user certificate and an X.509 client certificate for one private key; the names are tbot's."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

from pydantic import Field

from machinebot.outputs.base import Material, OutputType, always, files
from machinebot.outputs.trust import certificates, host_patterns, known_hosts
from machinebot.policy.credential import Purpose, Usage, Wish
from machinebot.resources.meta import Model, written_as

_HOSTS: Final = written_as(
    r"^[A-Za-z0-9*?.:_\[\]-]+$", "must be a host pattern such as *.backup.internal, without commas or blanks; one entry for each"
)


_PATH: Final = written_as(
    r"^(/[A-Za-z0-9._-]+)+$", "must be the absolute path that the Secret is mounted at, such as /id, without blanks"
)

MOUNT_PATH: Final = "/id"
"""Where ssh_config looks for the files unless it is told otherwise."""


class IdentitySettings(Model):
    """Settings of an `identity` output."""

    known_hosts: Annotated[tuple[Annotated[str, _HOSTS, Field(max_length=253)], ...], Field(max_length=64)] = Field(
        default=(),
        description=(
            "Host patterns, beside the cluster's own name and everything below it, for which `known_hosts` trusts the host CA."
        ),
    )
    mount_path: Annotated[str, _PATH, Field(max_length=253)] = Field(
        default=MOUNT_PATH,
        description="Where the Secret is mounted: `ssh_config` names the other files by this path. Use it by ssh -F.",
    )


def ask(_settings: IdentitySettings, /) -> Wish:
    """SSH for people's servers, X.509 for the rest."""
    return Wish(usages=frozenset({Usage.SSH_USER, Usage.IDENTITY}))


def render(settings: IdentitySettings, material: Material, /) -> Mapping[str, bytes]:
    """The keys of tbot's identity output, and the three of a `kubernetes.io/tls` Secret."""
    key, issued, trust = material.key, material.issued, material.trust
    ssh_certificate, certificate = issued.ssh_certificate or b"", issued.x509_certificate or b""
    patterns = tuple(dict.fromkeys((*host_patterns(trust.cluster_name), *settings.known_hosts)))
    return {
        "key": key.openssh,
        "key.pub": key.authorized_key + b"\n",
        "key-cert.pub": ssh_certificate + b"\n",
        "tlscert": certificate,
        "known_hosts": known_hosts(trust.of(Purpose.SSH_HOST), patterns),
        "ssh_config": _ssh_config(settings.mount_path, patterns),
        "tls.crt": certificate,
        "tls.key": key.pkcs8,
        "ca.crt": certificates(trust.of(Purpose.IDENTITY)),
    }


def _ssh_config(mount_path: str, patterns: Sequence[str]) -> bytes:
    """A configuration for ssh(1) with everything that a login needs (ssh_config(5)).

    A pattern with a port, `[host]:2222`, is one of known_hosts alone: Host takes the name.
    """
    hosts = dict.fromkeys(re.sub(r"^\[([^\]]*)\](:[0-9]+)?$", r"\1", pattern) for pattern in patterns)
    lines = [
        f"Host {' '.join(hosts)}",
        f"    IdentityFile {mount_path}/key",
        f"    CertificateFile {mount_path}/key-cert.pub",
        f"    UserKnownHostsFile {mount_path}/known_hosts",
        "    GlobalKnownHostsFile none",
        "    IdentitiesOnly yes",
        "    StrictHostKeyChecking yes",
        "    UpdateHostKeys no",
    ]
    return "".join(f"{line}\n" for line in lines).encode()


_KEYS: Final = ("key", "key.pub", "key-cert.pub", "tlscert", "known_hosts", "ssh_config", "tls.crt", "tls.key", "ca.crt")

OUTPUT: Final = OutputType(
    name="identity",
    description=f"An SSH user certificate and an X.509 client certificate: {', '.join(_KEYS)}.",
    settings=IdentitySettings,
    ask=ask,
    render=render,
    keys=always(*_KEYS),
    parts=files(private_key="tls.key", certificates=("key-cert.pub", "tlscert", "tls.crt")),
)
