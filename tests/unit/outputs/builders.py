"""Real credentials for the tests of the output types: signed by the real authority for a role that allows every kind of name."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from machinebot.authority.embedded import EmbeddedAuthority
from machinebot.authority.rotation import advance
from machinebot.outputs import packing
from machinebot.outputs.base import ClusterFacts, Material, OutputType
from machinebot.outputs.keys import PrivateKeyPair, generate
from machinebot.outputs.registry import MachineOutput, parse_output
from machinebot.policy.credential import BotRef, Issued, IssueRequest, Purpose
from machinebot.policy.locks import Lock
from machinebot.resources.authority import MachineAuthoritySpec, Rotation
from machinebot.resources.bot import MachineBot
from machinebot.resources.output import PrivateKeyAlgorithm
from machinebot.resources.role import MachineRole

NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)
LIFE = timedelta(hours=24)
CLUSTER = "example.test"
ISSUER = "https://id.example.test"
BOT = BotRef("ci", "deployer")
API_SERVER = ClusterFacts(server="https://api.example.test:6443", certificate_authority=b"the CA of the API server\n")

ALLOW = {
    "logins": ["deploy"],
    "hostPrincipals": ["*"],
    "kubernetesUsers": ["deployer"],
    "kubernetesGroups": ["viewers", "team:deployers"],
    "dbUsers": ["*"],
    "dbNames": ["*"],
    "dnsNames": ["*"],
    "spiffePaths": ["/*"],
    "jwtAudiences": ["*"],
}

SPECS: dict[str, dict[str, Any]] = {
    "identity": {"identity": {}},
    "sshHost": {"sshHost": {"principals": ["web-1.example.test"]}},
    "application": {"application": {}},
    "database": {"database": {"user": "app"}},
    "database in one file": {"database": {"format": "mongo", "user": "app"}},
    "database server": {"database": {"server": True, "format": "postgres", "dnsNames": ["db.data.svc"]}},
    "kubernetes": {"kubernetes": {}},
    "kubernetes for Argo CD": {"kubernetes": {"argoCD": True}},
    "x509SVID": {"x509SVID": {}},
    "jwtSVID": {"jwtSVID": {"audiences": ["vault"]}},
}
"""Every type, and each form of it that is rendered in another way."""


class _World:
    """One bot with one role, and an API server that knows one token."""

    def bot(self, ref: BotRef) -> MachineBot | None:
        metadata = {"namespace": ref.namespace, "name": ref.name, "uid": "bot-1"}
        return MachineBot.model_validate({"metadata": metadata, "spec": {"roles": ["access"]}})

    def roles(self) -> Mapping[str, MachineRole]:
        spec = {"namespaces": ["ci"], "allow": ALLOW}
        return {"access": MachineRole.model_validate({"metadata": {"name": "access", "uid": "role-1"}, "spec": spec})}

    def locks(self) -> tuple[Lock, ...]:
        return ()

    async def review(self, token: str, audience: str) -> Mapping[str, Any]:
        assert token
        groups = ["system:serviceaccounts", "system:serviceaccounts:ci"]
        user = {"username": "system:serviceaccount:ci:machinebot-deployer", "uid": "sa-1", "groups": groups}
        return {"authenticated": True, "audiences": [audience], "user": user}


@lru_cache
def authority() -> EmbeddedAuthority:
    """An authority with every CA."""
    spec = MachineAuthoritySpec.model_validate({"clusterName": CLUSTER, "embedded": {}})
    generations = {
        purpose: advance((), NOW, purpose=purpose, algorithm="ECDSA-P256", cluster_name=CLUSTER, rotation=Rotation())
        for purpose in Purpose
    }
    world = _World()
    return EmbeddedAuthority("default", spec, generations, ISSUER, world, world)


@lru_cache
def key(algorithm: PrivateKeyAlgorithm) -> PrivateKeyPair:
    """A key of that algorithm, always the same: RSA takes long."""
    return generate(algorithm)


def body(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A MachineOutput as the API server sends it."""
    return {"metadata": {"name": "out", "namespace": "ci", "uid": "1"}, "spec": {"bot": BOT.name, **spec}}


def output(spec: Mapping[str, Any], **more: Any) -> MachineOutput:
    """A MachineOutput of that spec."""
    return parse_output(body({**spec, **more}))


def material(wanted: MachineOutput) -> Material:
    """What a content of that output is made from: a key of its algorithm and real credentials."""
    pair = key(wanted.spec.private_key.algorithm) if wanted.type.algorithms else None
    issued = asyncio.run(_issue(wanted, None if pair is None else pair.spki))
    return Material(private_key=pair, issued=issued, trust=authority().trust(), cluster=API_SERVER)


def content(wanted: MachineOutput, *, password: str | None = None) -> dict[str, bytes]:
    """What stands in the Secret of that output."""
    return packing.pack(wanted, material(wanted), password=password)


def settings_of(kind: OutputType[Any], **settings: Any) -> Any:
    """Settings of a type."""
    return kind.settings.model_validate(settings)


async def _issue(wanted: MachineOutput, public_key: bytes | None) -> Issued:
    identity = await authority().join(BOT, "token", expected_uid="sa-1", now=NOW)
    request = IssueRequest(
        output=wanted.metadata.name,
        wish=wanted.type.ask(wanted.settings),
        roles=wanted.spec.roles,
        lifetime=wanted.spec.wished_lifetime,
        public_key=public_key,
    )
    return await authority().issue(identity, request, now=NOW)
