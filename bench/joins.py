"""The join API under load: joins a second and their times by method, and what its limits refuse and do not refuse."""

import asyncio
import base64
import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm
from prometheus_client import CollectorRegistry

from bench import clients, load
from bench.clients import Order, Seen
from bench.process import busy_seconds, cpu_seconds
from bench.report import Report
from controlplane.cluster import ControlPlane, start_control_plane
from machinebot.joins.methods.github import ISSUER
from machinebot.joins.methods.token import secret_hash
from machinebot.kube.client import ApiServer, load_configuration
from machinebot.kube.resources import AUTHORITIES, BOTS, JOIN_TOKENS, SERVICE_ACCOUNTS, Resource
from machinebot.metrics import Metrics
from machinebot.protocol.messages import CHALLENGE_PATH, JOIN_PATH
from machinebot.resources.meta import API_VERSION
from workbench.chart import CLUSTER_NAME, Release, install_chart
from workbench.operator import PROGRAM, OperatorProcess

Json = dict[str, Any]

CLIENTS: Final = 16
"""Clients at a time."""

SECRETS_AT_MOST: Final = 1500
"""Most joins by a secret: each takes a join token of its own."""

RATE: Final = 300.0
P99_MS: Final = 100.0
"""The budget: joins a second, and the time within which 99 % are answered, ms."""

ELSEWHERE: Final = "OpenBao, in memory: Kubernetes login, SSH, X.509 (elsewhere)"
"""What another authority did with such clients on such a machine, for comparison; it was measured once, not in this run."""

SPENT: Final = "  ms of CPU each: operator, API server, clients; CPUs of others"
"""What each request took, and how many processors somebody else kept busy meanwhile: a busy machine measures its neighbours."""

NO_LIMIT: Final = {f"--join-{whose}-{what}": "1000000" for whose in ("address", "token") for what in ("rate", "burst")}
"""Flags of an operator that holds nobody back."""

BELOW: Final = 18.0
"""Joins a second that are below the limit of 20 for an address, as the chart sets it."""

BELOW_COUNT: Final = 180
"""How many of them: more than the 100 that an address may ask for at once."""

PAST_COUNT: Final = 1500
"""Joins as fast as they go, past that limit."""

MADE_SECONDS: Final = 180.0
"""Longest time until the operator has seen what was made."""

ACCOUNT: Final = "runner"
"""ServiceAccount of the pods that join."""

PODS: Final = Resource("/api/v1", "pods", namespaced=True)
SECRET: Final = "c" * 64
REPOSITORY: Final = "1296269"


@dataclass(frozen=True, slots=True)
class Method:
    """One way to join.

    Attributes:
        name: What it is called in the report.
        settings: The method and its settings in the join token.
        proofs: Proofs, used in turn.
        budget: Whether it has a budget.
        tokens: Join tokens; as many as joins where each is good for one.
    """

    name: str
    settings: Json
    proofs: Sequence[Json]
    budget: bool
    tokens: Sequence[str]

    @property
    def once(self) -> bool:
        """Whether each request may be sent once."""
        return len(self.tokens) > 1


def public_keys(count: int) -> list[str]:
    """Public keys as clients send them."""
    keys = (ec.generate_private_key(ec.SECP256R1()).public_key() for _ in range(count))
    return [base64.b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode() for key in keys]


def workflow_tokens(key: rsa.RSAPrivateKey, count: int) -> list[str]:
    """Tokens as GitHub gives them to workflows, with the claims that its documentation shows."""
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": CLUSTER_NAME,
        "sub": "repo:octo-org/octo-repo:environment:prod",
        "iat": now,
        "nbf": now - 300,
        "exp": now + 3600,
        "actor": "octocat",
        "actor_id": "12",
        "base_ref": "",
        "environment": "prod",
        "event_name": "workflow_dispatch",
        "head_ref": "",
        "job_workflow_ref": "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main",
        "ref": "refs/heads/main",
        "ref_type": "branch",
        "repository": "octo-org/octo-repo",
        "repository_id": REPOSITORY,
        "repository_owner": "octo-org",
        "repository_owner_id": "65",
        "repository_visibility": "private",
        "run_attempt": "2",
        "run_number": "10",
        "runner_environment": "github-hosted",
        "sha": "a" * 40,
        "workflow": "example-workflow",
    }
    return [
        jwt.encode({**claims, "jti": f"job-{number}", "run_id": str(number)}, key, algorithm="RS256", headers={"kid": "bench"})
        for number in range(count)
    ]


class Joins:
    """The measurements on one control plane.

    Args:
        cluster: The control plane.
        client: A client of it, as administrator.
        release: The installed chart.
        directory: For logs.
        report: Where the figures go.
        count: Joins of each method.
    """

    def __init__(
        self, cluster: ControlPlane, client: ApiServer, release: Release, directory: Path, report: Report, count: int
    ) -> None:
        self._cluster = cluster
        self._client = client
        self._release = release
        self._directory = directory
        self._report = report
        self._count = count
        self._keys = public_keys(64)

    async def run(self, *, program: Sequence[str] = PROGRAM, only: str = "") -> None:
        """All of them.

        Args:
            program: What to run as the operator.
            only: The one method to measure; empty for all, and the limits.
        """
        operator = OperatorProcess.from_release(self._release, self._directory, flags=NO_LIMIT, program=program)
        with operator:
            operator.wait_ready()
            self._cluster.kubectl("wait", "machineauthority", "default", "--for=condition=Ready", "--timeout=60s")
            self._cluster.kubectl("create", "serviceaccount", ACCOUNT, "--namespace", load.NAMESPACE)
            methods = [each for each in await self._methods() if only in each.name]
            for method in methods:
                await self._make(method)
            await self._settled(sum(len(method.tokens) for method in methods))
            self._floor(operator, methods[0], await self._authority())
            for method in methods:
                self._measure(operator, method, await self._authority())
            operator.stop()
        if not only:
            await self._limits(methods[0])

    # --- what is there ----------------------------------------------------------------------------------------------------

    async def _methods(self) -> list[Method]:
        """The methods with their proofs."""
        allow = [{"serviceAccount": f"{load.NAMESPACE}:{ACCOUNT}"}]
        jwks = self._cluster.kubectl("get", "--raw", "/openid/v1/jwks")
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        published = {**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": "bench", "alg": "RS256", "use": "sig"}
        workflows = {
            "allow": [{"repositoryID": REPOSITORY, "ref": "refs/heads/main"}],
            "staticJWKS": json.dumps({"keys": [published]}),
        }
        pods = [{"token": await self._pod_token(f"pod-{number}")} for number in range(CLIENTS)]
        jobs = [{"token": token} for token in workflow_tokens(key, CLIENTS)]
        secrets = min(self._count, SECRETS_AT_MOST) + CLIENTS * Order.warm
        static = {"type": "static_jwks", "staticJWKS": {"jwks": jwks}, "allow": allow}
        return [
            Method("kubernetes, static_jwks", {"kubernetes": static}, pods, budget=True, tokens=["static"]),
            Method("github", {"github": workflows}, jobs, budget=True, tokens=["github"]),
            Method("kubernetes, in_cluster", {"kubernetes": {"allow": allow}}, pods, budget=False, tokens=["in-cluster"]),
            Method(
                "token",
                {"expires": "2099-01-01T00:00:00Z", "token": {"secretHash": secret_hash(SECRET)}},
                [{"secret": SECRET}],
                budget=False,
                tokens=[f"secret-{number}" for number in range(secrets)],
            ),
        ]

    async def _pod_token(self, name: str) -> str:
        """A token of the ServiceAccount, bound to a pod; nothing runs."""
        containers = [{"name": "none", "image": "none"}]
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"serviceAccountName": ACCOUNT, "automountServiceAccountToken": False, "containers": containers},
        }
        pod = await self._client.create(PODS, load.NAMESPACE, body)
        bound = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": pod["metadata"]["uid"]}
        spec = {"audiences": [CLUSTER_NAME], "expirationSeconds": 1800, "boundObjectRef": bound}
        answer = await self._client.create(SERVICE_ACCOUNTS, load.NAMESPACE, {"spec": spec}, name=ACCOUNT, subresource="token")
        token: str = answer["status"]["token"]
        return token

    async def _make(self, method: Method) -> None:
        """A bot of the method, and its join tokens."""
        name = method.tokens[0]
        await self._client.create(BOTS, load.NAMESPACE, load.bot(name))

        async def make(number: int) -> None:
            body = {
                "apiVersion": API_VERSION,
                "kind": "MachineJoinToken",
                "metadata": {"name": method.tokens[number]},
                "spec": {"bot": name, **method.settings},
            }
            await self._client.create(JOIN_TOKENS, load.NAMESPACE, body)

        await load.rate(len(method.tokens), make)

    async def _settled(self, tokens: int) -> None:
        """Returns when the operator has said of every join token that it is Ready, and has nothing more to do."""
        async with asyncio.timeout(MADE_SECONDS):
            while await self._ready_tokens() < tokens:
                await asyncio.sleep(0.5)

    async def _ready_tokens(self) -> int:
        items = [item async for page in self._client.pages(JOIN_TOKENS, load.NAMESPACE) for item in page.items]
        conditions = [each for item in items for each in (item.get("status") or {}).get("conditions", ())]
        return sum(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    async def _authority(self) -> str:
        """The CAs that the join API is verified by, PEM."""
        authority = await self._client.get(AUTHORITIES, "", "default") or {}
        return "".join(each["public"] for each in authority["status"]["authorities"] if each["purpose"] == "identity")

    def _body(self, method: Method, number: int) -> str:
        """A join that asks for an SSH and an X.509 certificate."""
        key, ssh, tls = (self._keys[(number + offset) % len(self._keys)] for offset in range(3))
        wanted = [
            {"name": "ssh", "usages": ["ssh-user"], "publicKey": ssh},
            {"name": "x509", "usages": ["identity"], "publicKey": tls},
        ]
        body = {
            "namespace": load.NAMESPACE,
            "joinToken": method.tokens[number % len(method.tokens)],
            "publicKey": key,
            "proof": method.proofs[number % len(method.proofs)],
            "outputs": wanted,
        }
        return json.dumps(body)

    # --- figures ----------------------------------------------------------------------------------------------------------

    def _order(self, operator: OperatorProcess, method: Method, authority: str, **fields: Any) -> Order:
        count = len(method.tokens) if method.once else 4 * CLIENTS
        return Order(
            port=operator.https_port,
            name="localhost",
            authority=authority,
            bodies=[self._body(method, number) for number in range(count)],
            clients=CLIENTS,
            once=method.once,
            **{
                "path": JOIN_PATH,
                "wanted": ["sshCertificate", "x509Certificate"],
                "count": min(self._count, len(method.tokens) - CLIENTS * Order.warm) if method.once else self._count,
                **fields,
            },
        )

    def _floor(self, operator: OperatorProcess, method: Method, authority: str) -> None:
        """What TLS, HTTP and JSON cost where nothing is judged and nothing signed."""
        asked = json.dumps({"namespace": load.NAMESPACE, "joinToken": method.tokens[0], "publicKey": self._keys[0]})
        order = self._order(operator, method, authority, path=CHALLENGE_PATH, wanted=["clusterName"])
        seen, spent = self._watched(operator, Order(**{**vars(order), "bodies": [asked]}))
        self._report.heading(f"join API, {CLIENTS} clients, each join with an SSH and an X.509 certificate in one request")
        self._report.say(ELSEWHERE, "244/s, p99 169 ms")
        self._report.say(
            "floor: /v1/challenge, nothing judged or signed", f"{seen.per_second:.0f}/s, p99 {seen.percentile(99):.0f} ms"
        )
        self._report.say(SPENT, spent)

    def _measure(self, operator: OperatorProcess, method: Method, authority: str) -> None:
        """One method."""
        report = self._report
        seen, spent = self._watched(operator, self._order(operator, method, authority))
        rate, p99 = seen.per_second, seen.percentile(99)
        report.say(
            f"{method.name}: median {seen.percentile(50):.0f} ms",
            f"{rate:.0f} joins/s, p99 {p99:.0f} ms",
            f">= {RATE:.0f}/s, p99 <= {P99_MS:.0f} ms" if method.budget else "",
            met=rate >= RATE and p99 <= P99_MS if method.budget else None,
        )
        report.say(SPENT, spent)
        refused = sum(seen.answers.values()) - seen.answers["200"] + seen.incomplete
        report.say("  refused, broken or incomplete", f"{refused} of {len(seen.milliseconds)}", "0", met=refused == 0)
        if method.budget:
            few = self._order(operator, method, authority, anew=True, count=max(CLIENTS, self._count // 3))
            seen, spent = self._watched(operator, few)
            report.say(
                "  the same with a new TLS connection for each join",
                f"{seen.per_second:.0f} joins/s, p99 {seen.percentile(99):.0f} ms",
            )
            report.say(SPENT, spent)

    def _watched(self, operator: OperatorProcess, order: Order) -> tuple[Seen, str]:
        """Carries out an order, and says who used the processors for it meanwhile."""
        own, control = [operator.pid], list(self._cluster.pids.values())
        before, busy, begun = (_used(own), _used(control)), busy_seconds(), time.monotonic()
        seen = clients.run(order)
        spent = _used(own) - before[0], _used(control) - before[1]
        busy, whole = busy_seconds() - busy, time.monotonic() - begun
        asked = len(seen.milliseconds) + order.clients * order.warm
        each = (spent[0] / asked, spent[1] / asked, seen.cpu / len(seen.milliseconds))
        others = max(0.0, busy - sum(spent) - seen.cpu) / whole
        return seen, f"{', '.join(f'{1000 * cost:.2f}' for cost in each)}; {others:.1f} of {os.cpu_count()}"

    async def _limits(self, method: Method) -> None:
        """The limits as the chart sets them."""
        report = self._report
        report.heading("join API, its limits as the chart sets them")
        with OperatorProcess.from_release(self._release, self._directory, pod_name="machinebot-1") as operator:
            operator.wait_ready()
            authority = await self._authority()
            await self._knows(operator, method, authority)
            order = self._order(operator, method, authority, warm=0, count=BELOW_COUNT, per_second=BELOW)
            seen = clients.run(order)
            good = seen.answers["200"] - seen.incomplete
            report.say(
                f"joins refused at {BELOW:.0f}/s, where 20/s are let through",
                f"{BELOW_COUNT - good} of {BELOW_COUNT}",
                "0",
                met=good == BELOW_COUNT,
            )
            seen = clients.run(self._order(operator, method, authority, warm=0, count=PAST_COUNT))
            refused, let_in = seen.answers["429"], seen.answers["200"]
            clear = refused + let_in == PAST_COUNT and seen.unhelpful == 0 and refused > 0
            report.say(f"past it, as fast as they go ({seen.per_second:.0f}/s): let in", f"{let_in} of {PAST_COUNT}")
            report.say(
                f"  told 429 {', '.join(seen.reasons)} with Retry-After ({seen.unhelpful} without)",
                f"{refused} of {PAST_COUNT}",
                "all others",
                met=clear,
            )
            operator.stop()

    async def _knows(self, operator: OperatorProcess, method: Method, authority: str) -> None:
        """Returns when a fresh operator lets in by the join token."""
        order = self._order(operator, method, authority, warm=0, count=1)
        async with asyncio.timeout(MADE_SECONDS):
            while clients.run(Order(**{**vars(order), "clients": 1})).answers["200"] == 0:
                await asyncio.sleep(1)


def _used(pids: Iterable[int]) -> float:
    """Processor time of processes so far, seconds."""
    return sum(sum(cpu_seconds(pid)) for pid in pids)


async def run(directory: Path, report: Report, count: int, **chosen: Any) -> None:
    """Everything about the join API, on a control plane of its own."""
    with start_control_plane(directory / "joins") as cluster:
        client = ApiServer(await load_configuration(cluster.admin_kubeconfig), Metrics(CollectorRegistry()), timeout=60)
        cluster.kubectl("create", "namespace", load.NAMESPACE)
        release = install_chart(cluster)
        await Joins(cluster, client, release, directory, report, count).run(**chosen)
        await client.close()
