"""What is signed: one immutable profile a usage, and the closed request that goes with it.

Ceilings stand here, in code, whatever an object says. A request is made of checked names and a key; nothing else reaches a
certificate.
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import SSHCertificateType
from cryptography.x509.oid import ExtendedKeyUsageOID

from machinebot.authority.keys import PublicKey
from machinebot.errors import Invalid
from machinebot.policy.credential import Form, Purpose, Usage
from machinebot.policy.lifetimes import MAXIMUM

NOTE: Final = x509.ObjectIdentifier("2.25.240706938363293884621838617768438192430")
"""The extension of identities of bots: which instance it is, as JSON in a UTF8String. The arc of UUIDs (ITU-T X.667) needs no
registration."""

MAX_NOTE: Final = 2048
"""Longest note, characters."""

MAX_PRINCIPALS: Final = 256
"""Most principals of an SSH certificate: OpenSSH refuses one with more (SSHKEY_CERT_MAX_PRINCIPALS)."""

USER_PRINCIPAL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@\\$-]{0,63}")
r"""A login. No comma (sshd separates principals with it), blank, newline, wildcard or leading dash; `DOMAIN\user` fits."""

HOST_PRINCIPAL: Final = re.compile(r"[a-z0-9]([a-z0-9._:-]{0,251}[a-z0-9])?")
"""A host name or address. ssh(1) takes the principals of hosts for patterns, so no wildcard; and it compares in lower case,
while a deny compares exactly, so no capital letter either."""


def _checked_ceiling(ceiling: timedelta) -> None:
    if not timedelta(0) < ceiling <= MAXIMUM.length:
        raise ValueError(f"the ceiling of a profile must lie above nothing and at most at {MAXIMUM.length}, not at {ceiling}")


@dataclass(frozen=True, slots=True)
class SSHProfile:
    """What an SSH CA signs (PROTOCOL.certkeys).

    Attributes:
        usage: What the certificate is used for.
        ceiling: Longest span of a certificate.
        type: For users or for hosts.
        principal: What one principal must look like, the whole of it.
        extensions: Extensions that a certificate may carry.
        critical_options: Critical options that it may carry.
    """

    usage: Usage
    ceiling: timedelta
    type: SSHCertificateType
    principal: re.Pattern[str]
    extensions: frozenset[bytes] = frozenset()
    critical_options: frozenset[bytes] = frozenset()

    def __post_init__(self) -> None:
        _checked_ceiling(self.ceiling)

    @property
    def purpose(self) -> Purpose:
        """The CA."""
        return self.usage.purpose

    def check_principals(self, principals: tuple[str, ...]) -> None:
        """Holds the principals against the profile.

        Raises:
            Invalid: There is none (to sshd that would mean all), there are too many, or one could be read as something else.
        """
        if not principals:
            raise Invalid("NoPrincipals", "an SSH certificate without a principal is never signed: to sshd it is good for all")
        if len(principals) > MAX_PRINCIPALS:
            raise Invalid("TooManyPrincipals", f"more than {MAX_PRINCIPALS} principals: split them over several outputs")
        for principal in principals:
            if self.principal.fullmatch(principal) is None:
                raise Invalid(
                    "InvalidPrincipal",
                    f"{principal[:64]!r} cannot be a principal of {self.purpose.value}: write one plain name, without blanks, "
                    "commas and wildcards, and host names in lower case",
                )


@dataclass(frozen=True, slots=True)
class X509Profile:
    """What an X.509 CA signs (RFC 5280; X509-SVID, section 4).

    Attributes:
        usage: What the certificate is used for.
        ceiling: Longest span of a certificate.
        key_usage: The critical keyUsage.
        extended_key_usage: The extendedKeyUsage, exactly.
        dns_names: Whether it may carry DNS names.
        note: Whether it carries a note of ours, in the extension `NOTE`.
    """

    usage: Usage
    ceiling: timedelta
    key_usage: x509.KeyUsage
    extended_key_usage: tuple[x509.ObjectIdentifier, ...]
    dns_names: bool = False
    note: bool = False

    def __post_init__(self) -> None:
        _checked_ceiling(self.ceiling)

    @property
    def purpose(self) -> Purpose:
        """The CA."""
        return self.usage.purpose


@dataclass(frozen=True, slots=True)
class TokenProfile:
    """What JWTs are signed (RFC 7519; JWT-SVID, sections 2 and 3).

    Attributes:
        usage: What the token is used for.
        ceiling: Longest span of a token.
    """

    usage: Usage
    ceiling: timedelta

    def __post_init__(self) -> None:
        _checked_ceiling(self.ceiling)

    @property
    def purpose(self) -> Purpose:
        """The CA."""
        return self.usage.purpose


Profile = SSHProfile | X509Profile | TokenProfile


def new_serial() -> int:
    """A serial number: positive, below 2**63 and of 63 random bits (RFC 5280, section 4.1.2.2; OpenSSH's has 64)."""
    return secrets.randbelow(2**63 - 1) + 1


@dataclass(frozen=True, slots=True)
class Stamp:
    """What all certificates of one issue share.

    Attributes:
        serial: Positive, below 2**63.
        not_before: Begin, UTC, whole seconds.
        not_after: End, UTC, whole seconds.
    """

    serial: int
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class SSHRequest:
    """An SSH certificate to be signed.

    Attributes:
        profile: What its CA signs.
        stamp: Serial and dates.
        public_key: The key to be certified.
        key_id: Who it is, for the log of sshd.
        principals: Logins or host names; never empty.
        extensions: Extensions, all without a value.
        source_addresses: CIDR networks of the critical option source-address; empty for anywhere.
    """

    profile: SSHProfile
    stamp: Stamp
    public_key: PublicKey
    key_id: str
    principals: tuple[str, ...]
    extensions: tuple[bytes, ...] = ()
    source_addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """Who an X.509 certificate names. Each part of at most 64 characters (RFC 5280, appendix A.1).

    Attributes:
        organizations: O, in their order; Kubernetes takes them for groups.
        common_name: CN, or None.
        spiffe_id: The one URI in the subjectAltName.
        unit: OU, or None.
        dns_names: DNS names in the subjectAltName, after the URI.
        note: Text of the extension `NOTE`, or None where there is none.
    """

    organizations: tuple[str, ...]
    common_name: str | None
    spiffe_id: str
    unit: str | None = None
    dns_names: tuple[str, ...] = ()
    note: str | None = None


@dataclass(frozen=True, slots=True)
class X509Request:
    """An X.509 certificate to be signed.

    Attributes:
        profile: What its CA signs.
        stamp: Serial and dates.
        public_key: The key to be certified.
        subject: Who it names.
    """

    profile: X509Profile
    stamp: Stamp
    public_key: PublicKey
    subject: Subject


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A JWT to be signed.

    Attributes:
        profile: What is signed.
        stamp: Serial and dates.
        issuer: `iss`.
        subject: `sub`, a SPIFFE ID.
        audiences: `aud`; never empty.
    """

    profile: TokenProfile
    stamp: Stamp
    issuer: str
    subject: str
    audiences: tuple[str, ...]


Request = SSHRequest | X509Request | TokenRequest

DIGITAL_SIGNATURE: Final = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
"""All that a TLS client needs its key for."""

_CLIENT: Final = (ExtendedKeyUsageOID.CLIENT_AUTH,)
_SERVER: Final = (ExtendedKeyUsageOID.SERVER_AUTH,)
_PEER: Final = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)

SSH_USER: Final = SSHProfile(
    usage=Usage.SSH_USER,
    ceiling=MAXIMUM.length,
    type=SSHCertificateType.USER,
    principal=USER_PRINCIPAL,
    # No permit-X11-forwarding: it opens the holder's display to the host. No permit-user-rc: ~/.ssh/rc is for people.
    extensions=frozenset({b"permit-agent-forwarding", b"permit-port-forwarding", b"permit-pty"}),
    critical_options=frozenset({b"source-address"}),
)

SSH_HOST: Final = SSHProfile(
    usage=Usage.SSH_HOST,
    ceiling=MAXIMUM.length,
    type=SSHCertificateType.HOST,
    principal=HOST_PRINCIPAL,
)


def _x509(usage: Usage, extended: tuple[x509.ObjectIdentifier, ...], *, dns_names: bool = False) -> X509Profile:
    return X509Profile(
        usage=usage, ceiling=MAXIMUM.length, key_usage=DIGITAL_SIGNATURE, extended_key_usage=extended, dns_names=dns_names
    )


IDENTITY: Final = _x509(Usage.IDENTITY, _CLIENT)
IDENTITY_SERVER: Final = _x509(Usage.IDENTITY_SERVER, _SERVER, dns_names=True)
"""Our own HTTPS."""
DATABASE_CLIENT: Final = _x509(Usage.DATABASE_CLIENT, _CLIENT)
DATABASE_SERVER: Final = _x509(Usage.DATABASE_SERVER, _SERVER, dns_names=True)
DATABASE_NODE: Final = _x509(Usage.DATABASE_NODE, _PEER, dns_names=True)
"""A server that is the client of its peers: MongoDB and CockroachDB."""
KUBERNETES: Final = _x509(Usage.KUBERNETES, _CLIENT)
WORKLOAD: Final = _x509(Usage.WORKLOAD, _PEER, dns_names=True)
"""An X509-SVID is good for both ends of a connection (X509-SVID, section 4.4)."""
BOT: Final = X509Profile(
    usage=Usage.BOT, ceiling=MAXIMUM.length, key_usage=DIGITAL_SIGNATURE, extended_key_usage=_CLIENT, note=True
)
"""The identity of a bot outside of the cluster, at the join API."""
WORKLOAD_TOKEN: Final = TokenProfile(usage=Usage.WORKLOAD_TOKEN, ceiling=MAXIMUM.length)

PROFILES: Final[Mapping[Usage, Profile]] = MappingProxyType(
    {
        each.usage: each
        for each in (
            SSH_USER,
            SSH_HOST,
            IDENTITY,
            IDENTITY_SERVER,
            DATABASE_CLIENT,
            DATABASE_SERVER,
            DATABASE_NODE,
            KUBERNETES,
            WORKLOAD,
            WORKLOAD_TOKEN,
            BOT,
        )
    }
)
"""The profile of every usage."""

FOR_BOTS: Final = frozenset(Usage) - {Usage.IDENTITY_SERVER, Usage.BOT}
"""What bots may ask for: our own HTTPS is none of it, and who a bot is follows from a join alone."""


def check_usages(usages: frozenset[Usage]) -> None:
    """Refuses a credential that cannot be made, whoever wants it.

    Raises:
        Invalid: No usage, one that is not for bots, or two of the same form.
    """
    if not usages:
        raise Invalid("NoUsage", "the credential names nothing to be signed for: ask for at least one usage")
    if not usages <= FOR_BOTS:
        raise Invalid("UsageNotForBots", "the authority signs that for itself alone: ask for another usage")
    if len({usage.form for usage in usages}) != len(usages):
        raise Invalid("TooManyUsages", f"a credential holds one {', one '.join(Form)} at most: use an output for each")
