"""Objects for the tests of the authority: a small world with one bot and one role."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, SSHCertificate, load_ssh_public_identity

from machinebot.authority.embedded import EmbeddedAuthority
from machinebot.authority.generations import Generation
from machinebot.authority.keys import CAKey, PublicKey
from machinebot.authority.rotation import advance
from machinebot.policy.credential import BotIdentity, BotRef, Issued, IssueRequest, Purpose, Wish
from machinebot.resources.authority import KeyAlgorithm, MachineAuthoritySpec, Rotation
from machinebot.resources.bot import MachineBot
from machinebot.resources.role import MachineRole

NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
CLUSTER = "example.test"
ROTATION = Rotation()
REF = BotRef("ci", "deployer")
BUILT = (Purpose.SSH_USER, Purpose.SSH_HOST, Purpose.IDENTITY)
BOTH = frozenset({Purpose.SSH_USER, Purpose.IDENTITY})
HOST = frozenset({Purpose.SSH_HOST})


def spec(**fields: Any) -> MachineAuthoritySpec:
    return MachineAuthoritySpec.model_validate({"clusterName": CLUSTER, "embedded": {}, **fields})


def bot(metadata: Mapping[str, Any] | None = None, **fields: Any) -> MachineBot:
    return MachineBot.model_validate(
        {
            "metadata": {"namespace": REF.namespace, "name": REF.name, "uid": "bot-1", **(metadata or {})},
            "spec": {"roles": ["access"], "logins": ["deploy"], **fields},
        }
    )


def role(name: str = "access", **fields: Any) -> MachineRole:
    return MachineRole.model_validate(
        {
            "metadata": {"name": name, "uid": f"role-{name}"},
            "spec": {
                "namespaces": ["ci"],
                "allow": {"logins": ["{{ internal.logins }}"], "hostPrincipals": ["*.node.example.test"]},
                **fields,
            },
        }
    )


@lru_cache
def _first(purpose: Purpose, algorithm: KeyAlgorithm) -> tuple[Generation, ...]:
    return advance((), NOW, purpose=purpose, algorithm=algorithm, cluster_name=CLUSTER, rotation=ROTATION)


def generations(purpose: Purpose, algorithm: KeyAlgorithm = "ECDSA-P256") -> tuple[Generation, ...]:
    """The first generation of a purpose, made at NOW and always the same."""
    return _first(purpose, algorithm)


def ca(purpose: Purpose, algorithm: KeyAlgorithm = "ECDSA-P256") -> Generation:
    """The active generation of a purpose, always the same."""
    return generations(purpose, algorithm)[0]


def all_generations(algorithm: KeyAlgorithm = "ECDSA-P256") -> dict[Purpose, tuple[Generation, ...]]:
    return {purpose: generations(purpose, algorithm) for purpose in BUILT}


@lru_cache
def subject_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def der(key: PublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def secret_number(key: CAKey) -> str:
    """What must never be shown of an EC key."""
    assert isinstance(key.private_key, ec.EllipticCurvePrivateKey)
    return str(key.private_key.private_numbers().private_value)


@dataclass
class World:
    """Bots, roles and ServiceAccounts, and the authority that sees them."""

    bots: dict[BotRef, MachineBot] = field(default_factory=lambda: {REF: bot()})
    known_roles: dict[str, MachineRole] = field(default_factory=lambda: {"access": role()})
    uids: dict[str, str] = field(default_factory=lambda: {"system:serviceaccount:ci:machinebot-deployer": "sa-1"})
    account: str = "system:serviceaccount:ci:machinebot-deployer"
    reviews: list[tuple[str, str]] = field(default_factory=list)

    def bot(self, ref: BotRef) -> MachineBot | None:
        return self.bots.get(ref)

    def roles(self) -> Mapping[str, MachineRole]:
        return self.known_roles

    async def review(self, token: str, audience: str) -> Mapping[str, Any]:
        self.reviews.append((token, audience))
        namespace = self.account.split(":")[2]
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
        user = {"username": self.account, "uid": self.uids[self.account], "groups": groups}
        return {"authenticated": token == "good", "audiences": [audience], "user": user}

    def authority(self, name: str = "default", **fields: Any) -> EmbeddedAuthority:
        return EmbeddedAuthority(name, spec(**fields), all_generations(), self, self)


async def joined(authority: EmbeddedAuthority, now: datetime = NOW, uid: str = "sa-1") -> BotIdentity:
    return await authority.join(REF, "good", expected_uid=uid, now=now)


def request(
    purposes: frozenset[Purpose] = BOTH,
    *,
    roles: Sequence[str] = (),
    lifetime: timedelta = DAY,
    hosts: Sequence[str] = (),
    key: bytes | None = None,
) -> IssueRequest:
    return IssueRequest(
        output="out",
        wish=Wish(purposes=purposes, host_principals=tuple(hosts)),
        roles=tuple(roles),
        lifetime=lifetime,
        public_key=der(subject_key().public_key()) if key is None else key,
    )


def ending(generation: Generation, not_after: datetime) -> Generation:
    """The generation with another end; an X.509 certificate keeps its own."""
    return replace(generation, not_after=not_after)


def ssh_of(issued: Issued) -> SSHCertificate:
    assert issued.ssh_certificate is not None
    certificate = load_ssh_public_identity(issued.ssh_certificate)
    assert isinstance(certificate, SSHCertificate)
    return certificate


def x509_of(issued: Issued) -> x509.Certificate:
    assert issued.x509_certificate is not None
    return x509.load_pem_x509_certificate(issued.x509_certificate)
