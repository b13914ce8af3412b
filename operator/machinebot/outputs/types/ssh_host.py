"""`sshHost`: a host key with a certificate for sshd; the names are tbot's."""

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field

from machinebot.outputs.base import Material, OutputType, always, files
from machinebot.outputs.trust import key_lines
from machinebot.policy.credential import Purpose, Usage, Wish
from machinebot.policy.names import NameKind
from machinebot.resources.meta import Model, written_as

_HOST: Final = written_as(
    r"^[a-z0-9]([a-z0-9.:_-]*[a-z0-9])?$",
    "must be a host name or address in small letters, such as web-1.node.example.test, without wildcards; one entry for each",
)


class SSHHostSettings(Model):
    """Settings of an `sshHost` output."""

    principals: Annotated[
        tuple[Annotated[str, _HOST, Field(max_length=253)], ...],
        Field(min_length=1, max_length=64),
    ] = Field(
        description=(
            "Names and addresses that clients reach the host by. Each must fit `allow.hostPrincipals` of one of the roles. No "
            "wildcards."
        ),
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )


def ask(settings: SSHHostSettings, /) -> Wish:
    """A host certificate for the names in the settings."""
    return Wish(usages=frozenset({Usage.SSH_HOST}), names={NameKind.HOST_PRINCIPALS: settings.principals})


def render(_settings: SSHHostSettings, material: Material, /) -> Mapping[str, bytes]:
    """HostKey, HostCertificate and TrustedUserCAKeys of sshd_config(5)."""
    return {
        "ssh_host": material.key.openssh,
        "ssh_host.pub": material.key.authorized_key + b"\n",
        "ssh_host-cert.pub": (material.issued.ssh_certificate or b"") + b"\n",
        "ssh_host-user-ca.pub": key_lines(material.trust.of(Purpose.SSH_USER)),
    }


OUTPUT: Final = OutputType(
    name="sshHost",
    description=(
        "A host key and certificate for sshd, and the CA that signs users: ssh_host, ssh_host.pub, ssh_host-cert.pub, "
        "ssh_host-user-ca.pub."
    ),
    settings=SSHHostSettings,
    ask=ask,
    render=render,
    keys=always("ssh_host", "ssh_host.pub", "ssh_host-cert.pub", "ssh_host-user-ca.pub"),
    parts=files(private_key="ssh_host", certificates=("ssh_host-cert.pub",)),
    x509=False,
)
