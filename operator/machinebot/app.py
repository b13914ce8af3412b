"""The one place that puts the parts together."""

import asyncio
import gc
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from machinebot.authority.desk import Desk
from machinebot.authority.serving import dns_names
from machinebot.clock import Clock, SystemClock
from machinebot.controller.fence import FencedClient
from machinebot.controller.leader import Leader
from machinebot.controller.queue import WorkQueue
from machinebot.controller.term import Term
from machinebot.errors import LeadershipLost, MachinebotError
from machinebot.issuers.fetching import Issuers
from machinebot.kube.client import ApiServer, KubeClient, cluster_facts, load_configuration
from machinebot.kube.events import EventRecorder
from machinebot.kube.leases import Leases
from machinebot.kube.secrets import SecretStore
from machinebot.kube.tokens import ServiceAccounts, TokenReviews
from machinebot.metrics import Metrics
from machinebot.outputs.base import ClusterFacts
from machinebot.policy.credential import TrustAnchor
from machinebot.reconcile.authorities import Authorities, AuthorityReconciler
from machinebot.reconcile.bots import BotReconciler
from machinebot.reconcile.bundles import BundleReconciler
from machinebot.reconcile.join_tokens import JoinTokenReconciler
from machinebot.reconcile.joins import BotJoins
from machinebot.reconcile.keys import Due, Key, Sort
from machinebot.reconcile.ledger import Ledger
from machinebot.reconcile.locks import LockReconciler
from machinebot.reconcile.outputs import OutputReconciler, OutputServices
from machinebot.reconcile.roles import RoleReconciler
from machinebot.reconcile.roster import Roster
from machinebot.reconcile.trust import TrustKeeper
from machinebot.reconcile.world import OutputFacts, World
from machinebot.settings import OperatorSettings
from machinebot.web.certificates import CertificateSource, FileCertificate, SignedCertificate
from machinebot.web.collector import ResourceCollector
from machinebot.web.https import HttpsServer
from machinebot.web.joins import JoinRates, JoinRoutes
from machinebot.web.limits import Rate
from machinebot.web.server import Server
from machinebot.web.trust import TrustRoutes

log = logging.getLogger(__name__)

SWEEPS_MISSED: Final = 3
"""`/healthz` fails when so many sweeps in a row did not happen."""

GC_THRESHOLDS: Final = (20_000, 20, 50)
"""Allocations before a young collection, and collections before an older one. Python's (700, 10, 10) look through all that is
kept of 10,000 outputs again and again, though little of it is ever in a cycle: 10 % of the CPU."""

STOP_SECONDS: Final = 10.0
"""Longest time for what is under way when the process is asked to stop."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What one term as a leader knows; each term begins with an empty one."""

    world: World
    authorities: Authorities
    term: Term
    begun: float


class Operator:
    """One operator process.

    Args:
        settings: How it runs.
        client: The API server.
        metrics: Its metrics.
        clock: Its clock.
        cluster: How clients reach the cluster.
        take_signals: Called each time that kopf has taken the process's signals, to take them back.
        outside: What judging joins asks of others; the servers of platforms themselves by default.
    """

    def __init__(
        self,
        settings: OperatorSettings,
        client: KubeClient,
        metrics: Metrics,
        clock: Clock,
        *,
        cluster: ClusterFacts,
        take_signals: Callable[[], None] = lambda: None,
        outside: Issuers | None = None,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._cluster = cluster
        self._take_signals = take_signals
        self._leader = Leader(
            Leases(client, settings.namespace, settings.lease_name),
            metrics,
            identity=settings.identity,
            duration=settings.lease_duration,
            renew_deadline=settings.lease_renew_deadline,
            retry=settings.lease_retry,
        )
        self._client = FencedClient(client, self._leader.check)
        self._events = EventRecorder(self._client, metrics, instance=settings.identity)
        self._picture: Picture | None = None
        metrics.registry.register(ResourceCollector(self._output_facts, self._anchors))
        self._server = Server(metrics.registry, healthy=self.trouble, ready=self.unready)
        # By the client as it is: a replica that stands by serves verifiers and bots too. What the join API writes carries the
        # resourceVersion that it was decided on, so that no Lease is needed for it.
        self._roster = Roster(client, settings.watch_namespaces)
        self._ledger = Ledger(client, self._roster)
        self._trust = TrustKeeper(
            client,
            namespace=settings.namespace,
            url=settings.service_url,
            interval=settings.sweep_interval,
            directory=self._roster,
            changed=lambda: self._https.look(),  # noqa: PLW0108 - it is made below
        )
        self._outside = outside or Issuers(
            review=TokenReviews(client).review,
            clock=clock,
            counted=lambda result: metrics.issuer_fetches.labels(result).inc(),
        )
        self._https = HttpsServer(
            self._certificate(), (TrustRoutes(self._trust).add_to, self._joins().add_to), self._trust.client_authorities
        )
        self.https_port = 0
        """The port of HTTPS, once it serves."""

    @property
    def leads(self) -> bool:
        """Whether this replica leads."""
        return self._leader.leads

    def unready(self) -> str | None:
        """Why verifiers must not be sent here yet, or None: during a rolling update the replicas from before still serve them.

        Once ready, it stays so: an API server that is away takes nothing from what is known.
        """
        if not self._trust.looked:
            return "the trust of the authorities has not been read yet"
        if not self._https.has_certificate and self._trust.identity_issuer() is not None:
            return "there is no certificate for HTTPS yet"
        return None

    def trouble(self) -> str | None:
        """What is wrong so that a restart would help, or None."""
        picture = self._picture
        if picture is None or not self._leader.leads:
            return None
        limit = SWEEPS_MISSED * self._settings.sweep_interval
        if time.monotonic() - (picture.term.swept_at or picture.begun) > limit:
            return f"no full look at the cluster has ended for {limit:.0f} s"
        return None

    async def run(self, stop: asyncio.Event, started: Callable[[int], None] | None = None) -> None:
        """Serves, waits to lead, leads; until `stop` is set.

        Args:
            stop: Asks for a graceful end.
            started: Told the port that is served.

        Raises:
            ExceptionGroup: Something broke that only a new process mends.
        """
        port = await self._server.start(self._settings.listen_host, self._settings.listen_port)
        self.https_port = await self._https.start(self._settings.https_host, self._settings.https_port)
        if started is not None:
            started(port)
        # Before the work: when kopf ends, it cancels every task that began after it.
        serving = asyncio.create_task(self._serve(), name="serving")
        work = asyncio.create_task(self._work(), name="work")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait({serving, work, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for task in (work, serving):
                if task.done():
                    task.result()
        finally:
            await self._end(work, serving, stopping)

    async def _serve(self) -> None:
        """What every replica does, leader or not."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._trust.run(), name="trust")
            group.create_task(self._roster.run(), name="roster")
            group.create_task(self._ledger.run(), name="ledger")
            group.create_task(self._https.run(), name="https")

    async def _work(self) -> None:
        """Term after term: a Lease that was lost, because the API server was away, say, is waited for again."""
        while True:
            await self._leader.acquire()
            self._picture = self._begin()
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._events.run(), name="events")
                    group.create_task(self._picture.term.run(), name="term")
            except* LeadershipLost:
                log.warning("leadership lost")
            self._picture = None

    async def _end(self, *tasks: asyncio.Task[Any]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=STOP_SECONDS)
        await self._leader.release()
        await self._https.stop()
        await self._ledger.flush()
        await self._outside.close()
        await self._server.stop()

    def _joins(self) -> JoinRoutes:
        settings = self._settings
        rates = JoinRates(
            address=Rate(settings.join_address_rate, settings.join_address_burst),
            token=Rate(settings.join_token_rate, settings.join_token_burst),
        )
        desk = Desk(directory=self._roster, signers=self._trust.signer, outside=self._outside, ledger=self._ledger)
        return JoinRoutes(
            desk=desk,
            trust=self._trust,
            ready=lambda: self._roster.is_complete,
            rates=rates,
            clock=self._clock,
            metrics=self._metrics,
        )

    def _certificate(self) -> CertificateSource:
        settings = self._settings
        if settings.tls_certificate is not None and settings.tls_private_key is not None:
            return FileCertificate(settings.tls_certificate, settings.tls_private_key)
        names = dns_names(settings.service, settings.namespace, settings.service_host)
        return SignedCertificate(self._trust.identity_issuer, names, self._clock)

    def _begin(self) -> Picture:
        client, clock, events, metrics = self._client, self._clock, self._events, self._metrics
        world, queue, secrets = World(), WorkQueue[Key](clock), SecretStore(client)
        authorities = Authorities(world, TokenReviews(client), self._settings.service_url)
        joins = BotJoins(ServiceAccounts(client), events, metrics, clock)

        def enqueue(due: Due) -> None:
            queue.add_after(due.key, due.delay)

        bundles = BundleReconciler(
            client=client, world=world, authorities=authorities.get, events=events, clock=clock, enqueue=enqueue
        )
        keeper = AuthorityReconciler(
            client=client,
            world=world,
            secrets=secrets,
            authorities=authorities,
            events=events,
            clock=clock,
            namespace=self._settings.namespace,
            publication=bundles.publication,
            enqueue=enqueue,
        )
        bots = BotReconciler(client=client, world=world, joins=joins, authorities=authorities, events=events, clock=clock)
        outputs = OutputReconciler(
            OutputServices(
                client=client,
                world=world,
                secrets=secrets,
                joins=joins,
                authorities=authorities.get,
                events=events,
                metrics=metrics,
                clock=clock,
                cluster=self._cluster,
                enqueue=enqueue,
            )
        )
        term = Term(
            client=client,
            world=world,
            queue=queue,
            enqueue=enqueue,
            reconcilers={
                Sort.AUTHORITY: keeper.reconcile,
                Sort.BUNDLE: bundles.reconcile,
                Sort.ROLE: RoleReconciler(client, world, clock).reconcile,
                Sort.LOCK: LockReconciler(client=client, world=world, clock=clock, enqueue=enqueue).reconcile,
                Sort.JOIN_TOKEN: JoinTokenReconciler(client=client, world=world, clock=clock).reconcile,
                Sort.BOT: bots.reconcile,
                Sort.OUTPUT: outputs.reconcile,
            },
            metrics=metrics,
            clock=clock,
            settings=self._settings,
            hold=self._leader.hold,
            take_signals=self._take_signals,
        )
        return Picture(world=world, authorities=authorities, term=term, begun=time.monotonic())

    def _output_facts(self) -> Iterator[OutputFacts]:
        return iter(()) if self._picture is None else self._picture.world.output_facts()

    def _anchors(self) -> Iterator[tuple[str, TrustAnchor]]:
        return iter(()) if self._picture is None else self._picture.authorities.anchors()


async def run_operator(settings: OperatorSettings) -> int:
    """Runs one operator process until it is asked to stop; returns its exit code."""
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    kubeconfig = os.environ.get("KUBECONFIG")
    metrics = Metrics()
    configuration = await load_configuration(Path(kubeconfig) if kubeconfig else None)
    client = ApiServer(configuration, metrics, timeout=settings.request_timeout)
    stop = asyncio.Event()

    def take_signals() -> None:
        """SIGTERM and SIGINT end us gracefully."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)

    take_signals()
    cluster = cluster_facts(configuration, in_cluster=not kubeconfig)
    operator = Operator(settings, client, metrics, SystemClock(), cluster=cluster, take_signals=take_signals)
    code = 0
    try:
        await operator.run(stop)
    except* MachinebotError as broken:
        log.error("stopped", extra={"detail": "; ".join(map(str, broken.exceptions))})  # noqa: TRY400 - no traceback
        code = 1
    finally:
        await client.close()
    log.info("ended", extra={"code": code})
    return code
