"""The certificate of our own HTTPS: made by the authority for itself, never for a bot."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from machinebot.authority import x509
from machinebot.authority.generations import Generation
from machinebot.authority.profiles import IDENTITY_SERVER, Stamp, Subject, X509Request, new_serial
from machinebot.policy.lifetimes import BACKDATE
from machinebot.policy.names import NAME_RULES, NameKind

COMMON_NAME: Final = "machinebot"
"""CN, for people: clients go by the DNS names. No bot has it, theirs begin with `bot:`."""

PATH: Final = "/machinebot"
"""Path of our own SPIFFE ID. The CA of identities gives no other IDs than those of bots, which begin with `/ns/`."""

LOCAL: Final = "localhost"
"""Named too: people reach a Service by `kubectl port-forward`. Nobody but us has a certificate of that CA for servers."""


@dataclass(frozen=True, slots=True)
class ServingCertificate:
    """A certificate for our HTTPS, with its key.

    Attributes:
        certificate: PEM.
        private_key: PEM (PKCS#8); lives in this process only.
        issuer: Identifier of the CA generation that signed.
        dns_names: What it is good for.
        not_before: Begin, UTC.
        not_after: End, UTC.
    """

    certificate: bytes
    private_key: bytes = field(repr=False)
    issuer: str
    dns_names: tuple[str, ...]
    not_before: datetime
    not_after: datetime

    def is_due(self, issuer: Generation, dns_names: tuple[str, ...], now: datetime) -> bool:
        """Whether another one must take its place: half of its life is over, or it is another CA's or for other names now."""
        renew_at = self.not_before + (self.not_after - self.not_before) / 2
        return (self.issuer, self.dns_names) != (issuer.id, dns_names) or not self.not_before <= now < renew_at


def dns_names(service: str, namespace: str, host: str) -> tuple[str, ...]:
    """The names that our HTTPS is reached by: those of the Service in every cluster, the one of its address, and this machine's.

    Args:
        service: Name of the Service.
        namespace: Its namespace.
        host: The host of the address that clients are told; left out where it is no DNS name.
    """
    base = f"{service}.{namespace}"
    names = (host.lower(), base, f"{base}.svc", f"{base}.svc.cluster.local", LOCAL)
    return tuple(name for name in dict.fromkeys(names) if NAME_RULES[NameKind.DNS_NAMES].fits(name))


def serving_certificate(issuer: Generation, cluster_name: str, names: tuple[str, ...], now: datetime) -> ServingCertificate:
    """A certificate with a new key, for as long as the profile and the CA allow.

    Args:
        issuer: The active generation of the CA of identities.
        cluster_name: Name of the cluster, in the subject.
        names: DNS names that it is good for.
        now: The time.

    Raises:
        Denied: A check failed; nothing is to be used.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    begin = now.replace(microsecond=0) - BACKDATE
    end = min(begin + IDENTITY_SERVER.ceiling, issuer.not_after)
    request = X509Request(
        profile=IDENTITY_SERVER,
        stamp=Stamp(serial=new_serial(), not_before=begin, not_after=end),
        public_key=key.public_key(),
        subject=Subject(
            organizations=(cluster_name,),
            common_name=COMMON_NAME,
            spiffe_id=f"spiffe://{cluster_name}{PATH}",
            dns_names=names,
        ),
    )
    return ServingCertificate(
        certificate=x509.sign(request, issuer),
        private_key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        issuer=issuer.id,
        dns_names=names,
        not_before=begin,
        not_after=end,
    )
