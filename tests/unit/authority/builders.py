"""Objects for the tests of the authority: a small world with one bot and one role."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, SSHCertificate, load_ssh_public_identity

from machinebot.authority.embedded import EmbeddedAuthority
from machinebot.authority.generations import Generation
from machinebot.authority.keys import CAKey, PublicKey
from machinebot.authority.rotation import advance
from machinebot.policy.credential import BotIdentity, BotRef, Issued, IssueRequest, Purpose, Usage, Wish
from machinebot.policy.locks import Lock
from machinebot.policy.names import NameKind
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
ISSUER = "https://machinebot.example.test"
BOTH = frozenset({Usage.SSH_USER, Usage.IDENTITY})
HOST = frozenset({Usage.SSH_HOST})

Names = Mapping[NameKind, Sequence[str]]

EVERYTHING = {
    NameKind.LOGINS: ["deploy"],
    NameKind.HOST_PRINCIPALS: ["*"],
    NameKind.KUBERNETES_USERS: ["team:deployer"],
    NameKind.KUBERNETES_GROUPS: ["viewers", "team:ops"],
    NameKind.DB_USERS: ["*"],
    NameKind.DB_NAMES: ["*"],
    NameKind.DNS_NAMES: ["*"],
    NameKind.SPIFFE_PATHS: ["*"],
    NameKind.JWT_AUDIENCES: ["*"],
}
"""Names that allow whatever is asked for, and some of what is carried in full."""

WISHES: Mapping[Usage, Names] = {
    Usage.SSH_USER: {},
    Usage.SSH_HOST: {NameKind.HOST_PRINCIPALS: ["b.test", "a.test"]},
    Usage.IDENTITY: {},
    Usage.DATABASE_CLIENT: {NameKind.DB_USERS: ["app"], NameKind.DB_NAMES: ["orders"]},
    Usage.DATABASE_SERVER: {NameKind.DNS_NAMES: ["db.test"]},
    Usage.DATABASE_NODE: {NameKind.DNS_NAMES: ["db.test", "db"], NameKind.DB_USERS: ["node"]},
    Usage.KUBERNETES: {},
    Usage.WORKLOAD: {NameKind.SPIFFE_PATHS: ["/ns/ci/web"], NameKind.DNS_NAMES: ["web.test"]},
    Usage.WORKLOAD_TOKEN: {NameKind.JWT_AUDIENCES: ["vault", "api"]},
}
"""What a bot asks for, for each usage that bots may have."""


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


def allowing(name: str = "access", deny: Names | None = None, *, allow: Names | None = None, **fields: Any) -> MachineRole:
    """A role with these names; without any, one that allows everything."""
    return role(
        name,
        allow={kind.value: list(names) for kind, names in (EVERYTHING if allow is None else allow).items()},
        deny={kind.value: list(names) for kind, names in (deny or {}).items()},
        **fields,
    )


@lru_cache
def _first(purpose: Purpose, algorithm: KeyAlgorithm) -> tuple[Generation, ...]:
    return advance((), NOW, purpose=purpose, algorithm=algorithm, cluster_name=CLUSTER, rotation=ROTATION)


def generations(purpose: Purpose, algorithm: KeyAlgorithm = "ECDSA-P256") -> tuple[Generation, ...]:
    """The first generation of a purpose, made at NOW and always the same."""
    return _first(purpose, algorithm)


def ca_with(key: CAKey, purpose: Purpose) -> Generation:
    """The active generation of a purpose with that key, for keys that take long to make."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("machinebot.authority.keys.generate", lambda *_: key)
        return advance((), NOW, purpose=purpose, algorithm="RSA-4096", cluster_name=CLUSTER, rotation=ROTATION)[0]


def ca(purpose: Purpose, algorithm: KeyAlgorithm = "ECDSA-P256") -> Generation:
    """The active generation of a purpose, always the same."""
    return generations(purpose, algorithm)[0]


def all_generations(algorithm: KeyAlgorithm = "ECDSA-P256") -> dict[Purpose, tuple[Generation, ...]]:
    return {purpose: generations(purpose, algorithm) for purpose in Purpose}


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
    """Bots, roles, locks and ServiceAccounts, and the authority that sees them."""

    bots: dict[BotRef, MachineBot] = field(default_factory=lambda: {REF: bot()})
    known_roles: dict[str, MachineRole] = field(default_factory=lambda: {"access": role()})
    uids: dict[str, str] = field(default_factory=lambda: {"system:serviceaccount:ci:machinebot-deployer": "sa-1"})
    account: str = "system:serviceaccount:ci:machinebot-deployer"
    reviews: list[tuple[str, str]] = field(default_factory=list)
    known_locks: tuple[Lock, ...] = ()

    def bot(self, ref: BotRef) -> MachineBot | None:
        return self.bots.get(ref)

    def roles(self) -> Mapping[str, MachineRole]:
        return self.known_roles

    def locks(self) -> tuple[Lock, ...]:
        return self.known_locks

    async def review(self, token: str, audience: str) -> Mapping[str, Any]:
        self.reviews.append((token, audience))
        namespace = self.account.split(":")[2]
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
        user = {"username": self.account, "uid": self.uids[self.account], "groups": groups}
        return {"authenticated": token == "good", "audiences": [audience], "user": user}

    def authority(self, name: str = "default", **fields: Any) -> EmbeddedAuthority:
        return EmbeddedAuthority(name, spec(**fields), all_generations(), ISSUER, self, self)


async def joined(authority: EmbeddedAuthority, now: datetime = NOW, uid: str = "sa-1") -> BotIdentity:
    return await authority.join(REF, "good", expected_uid=uid, now=now)


def wish(usages: Iterable[Usage], names: Mapping[NameKind, Sequence[str]] | None = None) -> Wish:
    return Wish(usages=frozenset(usages), names={kind: tuple(wanted) for kind, wanted in (names or {}).items()})


def request(
    usages: frozenset[Usage] = BOTH,
    *,
    roles: Sequence[str] = (),
    lifetime: timedelta = DAY,
    names: Mapping[NameKind, Sequence[str]] | None = None,
    key: bytes | None = None,
) -> IssueRequest:
    return IssueRequest(
        output="out",
        wish=wish(usages, names),
        roles=tuple(roles),
        lifetime=lifetime,
        public_key=der(subject_key().public_key()) if key is None else key,
    )


def issued_for(
    usages: Iterable[Usage],
    cas: Mapping[Purpose, Generation] | None = None,
    *,
    names: Names | None = None,
    lifetime: timedelta = DAY,
    roles: Sequence[MachineRole] = (),
) -> Issued:
    """The credential of `WISHES` or with these names, by the usual CAs but for those given; for tests that are no coroutines."""
    known = {each.metadata.name: each for each in (roles or (allowing(),))}
    authority = World({REF: bot(roles=list(known))}, known).authority()
    authority.update(authority.spec, all_generations() | {purpose: (each,) for purpose, each in (cas or {}).items()}, ISSUER)
    if names is None:
        names = {kind: wanted for usage in usages for kind, wanted in WISHES[usage].items()}

    async def issue() -> Issued:
        return await authority.issue(await joined(authority), request(frozenset(usages), names=names, lifetime=lifetime), now=NOW)

    return asyncio.run(issue())


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
