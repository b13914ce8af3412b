"""What each CA signs: one immutable profile a purpose, and the closed request that goes with it.

Ceilings stand here, in code, whatever an object says. A request is made of checked names and a key; nothing else reaches a
certificate.
"""

import re
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
from machinebot.policy.credential import Purpose
from machinebot.policy.lifetimes import MAXIMUM

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
        purpose: The CA.
        ceiling: Longest span of a certificate.
        type: For users or for hosts.
        principal: What one principal must look like, the whole of it.
        extensions: Extensions that a certificate may carry.
        critical_options: Critical options that it may carry.
    """

    purpose: Purpose
    ceiling: timedelta
    type: SSHCertificateType
    principal: re.Pattern[str]
    extensions: frozenset[bytes] = frozenset()
    critical_options: frozenset[bytes] = frozenset()

    def __post_init__(self) -> None:
        _checked_ceiling(self.ceiling)

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
        purpose: The CA.
        ceiling: Longest span of a certificate.
        key_usage: The critical keyUsage.
        extended_key_usage: The extendedKeyUsage, exactly.
    """

    purpose: Purpose
    ceiling: timedelta
    key_usage: x509.KeyUsage
    extended_key_usage: tuple[x509.ObjectIdentifier, ...]

    def __post_init__(self) -> None:
        _checked_ceiling(self.ceiling)


Profile = SSHProfile | X509Profile


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
class X509Request:
    """An X.509 certificate to be signed.

    Attributes:
        profile: What its CA signs.
        stamp: Serial and dates.
        public_key: The key to be certified.
        common_name: CN, at most 64 characters (RFC 5280, upper bound ub-common-name).
        organization: O: the name of the cluster.
        spiffe_id: The one URI in the subjectAltName.
    """

    profile: X509Profile
    stamp: Stamp
    public_key: PublicKey
    common_name: str
    organization: str
    spiffe_id: str


Request = SSHRequest | X509Request

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

SSH_USER: Final = SSHProfile(
    purpose=Purpose.SSH_USER,
    ceiling=MAXIMUM.length,
    type=SSHCertificateType.USER,
    principal=USER_PRINCIPAL,
    # No permit-X11-forwarding: it opens the holder's display to the host. No permit-user-rc: ~/.ssh/rc is for people.
    extensions=frozenset({b"permit-agent-forwarding", b"permit-port-forwarding", b"permit-pty"}),
    critical_options=frozenset({b"source-address"}),
)

SSH_HOST: Final = SSHProfile(
    purpose=Purpose.SSH_HOST,
    ceiling=MAXIMUM.length,
    type=SSHCertificateType.HOST,
    principal=HOST_PRINCIPAL,
)

IDENTITY: Final = X509Profile(
    purpose=Purpose.IDENTITY,
    ceiling=MAXIMUM.length,
    key_usage=DIGITAL_SIGNATURE,
    extended_key_usage=(ExtendedKeyUsageOID.CLIENT_AUTH,),
)

PROFILES: Final[Mapping[Purpose, Profile]] = MappingProxyType({each.purpose: each for each in (SSH_USER, SSH_HOST, IDENTITY)})
"""Every purpose that is signed for; another one is refused."""


def profile_of(purpose: Purpose) -> Profile:
    """The profile of a purpose.

    Raises:
        Invalid: This release signs nothing for it.
    """
    profile = PROFILES.get(purpose)
    if profile is None:
        raise Invalid(
            "PurposeNotBuilt",
            f"this release signs nothing for the purpose {purpose.value!r}: use one of {', '.join(sorted(PROFILES))}",
        )
    return profile
