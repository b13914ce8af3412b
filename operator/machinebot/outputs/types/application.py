"""`application`: an X.509 client certificate for servers that ask for one; names as in a `kubernetes.io/tls` Secret."""

from collections.abc import Mapping
from typing import Final

from machinebot.outputs.base import Material, OutputType, always, files
from machinebot.outputs.trust import certificates
from machinebot.policy.credential import Purpose, Usage, Wish
from machinebot.resources.meta import Model


class ApplicationSettings(Model):
    """Settings of an `application` output: there are none, since the certificate names the bot."""


def ask(_settings: ApplicationSettings, /) -> Wish:
    """The bot's own name, for clients."""
    return Wish(usages=frozenset({Usage.IDENTITY}))


def render(_settings: ApplicationSettings, material: Material, /) -> Mapping[str, bytes]:
    """Certificate, key and the CAs that a server must trust."""
    return {
        "tls.crt": material.issued.x509_certificate or b"",
        "tls.key": material.key.pkcs8,
        "ca.crt": certificates(material.trust.of(Purpose.IDENTITY)),
    }


OUTPUT: Final = OutputType(
    name="application",
    description="An X.509 client certificate for servers that ask for one: tls.crt, tls.key, ca.crt.",
    settings=ApplicationSettings,
    ask=ask,
    render=render,
    keys=always("tls.crt", "tls.key", "ca.crt"),
    parts=files(private_key="tls.key", certificates=("tls.crt",)),
)
