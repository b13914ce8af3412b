"""`python -m bench [--pairs N] [--full N] [--joins N] [--joins-only]`: runs every measurement and prints figure, budget and floor."""

import argparse
import asyncio
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from bench import joins, load
from bench.process import cpu_seconds, memory_mib
from bench.report import Report
from controlplane.cluster import ControlPlane, start_control_plane
from machinebot.kube.client import ApiServer, load_configuration
from machinebot.kube.resources import OUTPUTS
from machinebot.metrics import Metrics
from workbench.chart import install_chart
from workbench.operator import OperatorProcess, parse_metrics

COUNTED: Final = ("secrets", "machineoutputs/status", "machinebots/status", "serviceaccounts", "events")
"""What an operator writes; `subresource` is joined to the resource."""

DEADLINE: Final = 900.0
"""Longest time for one measurement, seconds."""

SINGLES: Final = 200
"""Outputs that are applied one by one for the latency."""


RSA_OUTPUTS: Final = 500
"""Most outputs with RSA keys: enough for a figure, at 20 to 80 ms each."""


def api_writes(cluster: ControlPlane) -> dict[str, int]:
    """Writes so far, by resource, from the API server's own metrics."""
    totals: dict[str, int] = {}
    for name, value in parse_metrics(cluster.server_metrics()).items():
        if not name.startswith("apiserver_request_total{"):
            continue
        labels = dict(re.findall(r'(\w+)="([^"]*)"', name))
        if labels.get("verb") in ("POST", "PUT", "PATCH", "DELETE", "APPLY") and labels.get("code", "").startswith("2"):
            resource = labels["resource"] + (f"/{labels['subresource']}" if labels.get("subresource") else "")
            totals[resource] = totals.get(resource, 0) + int(value)
    return totals


def difference(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """What was written in between."""
    return {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}


async def wait_until(true: Callable[[], bool], seconds: float = DEADLINE) -> None:
    """Polls a condition.

    Raises:
        TimeoutError: It did not come true in time.
    """
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.05)


class Bench:
    """One run.

    Args:
        cluster: The control plane.
        client: A client of it, as administrator.
        operator: The operator process, running.
        report: Where the figures go.
    """

    def __init__(self, cluster: ControlPlane, client: ApiServer, operator: OperatorProcess, report: Report) -> None:
        self.cluster = cluster
        self.client = client
        self.operator = operator
        self.say = report.say
        self.follower = load.ReadyFollower(client)

    async def issue(self, pairs: int) -> None:
        """Many bots with one output each, applied at once, to all Ready."""
        before, (user, system) = api_writes(self.cluster), cpu_seconds(self.operator.pid)
        begun = time.monotonic()
        await load.apply_pairs(self.client, [f"bot-{number}" for number in range(pairs)])
        applied = time.monotonic() - begun
        await self.follower.wait(pairs, DEADLINE)
        seconds, after = time.monotonic() - begun, cpu_seconds(self.operator.pid)
        user, system = after[0] - user, after[1] - system
        cpu = user + system
        await self._settled()
        written = difference(before, api_writes(self.cluster))
        self.say(
            f"{pairs} bots with one output each, applied at once (in {applied:.1f} s) to Ready",
            f"{pairs / seconds:.0f} outputs/s",
            ">= 100/s",
            met=pairs / seconds >= 100,
        )
        self.say(
            f"operator's CPU for each output (user {1000 * user / pairs:.2f}, system {1000 * system / pairs:.2f})",
            f"{1000 * cpu / pairs:.2f} ms",
            "<= 6 ms",
            met=1000 * cpu / pairs <= 6,
        )
        own = (written.get("secrets", 0) + written.get("machineoutputs/status", 0)) / pairs
        self.say("API writes for each output (Secret, status)", f"{own:.3f}", "2", met=own <= 2)
        bots = (written.get("serviceaccounts", 0) + written.get("machinebots/status", 0)) / pairs
        self.say("API writes for each new bot (ServiceAccount, status)", f"{bots:.3f}", "2", met=bots <= 2)
        looks = self.metric('machinebot_reconcile_seconds_count{kind="MachineOutput"}') / pairs
        self.say("looks at each output", f"{looks:.2f}")
        self.say("Events for each output", f"{written.get('events', 0) / pairs:.3f}", "<= 1")

    async def fill(self, total: int) -> None:
        """More pairs, until there are so many."""
        have = len(self.follower.ready)
        await load.apply_pairs(self.client, [f"fill-{number}" for number in range(total - have)])
        await self.follower.wait(total, DEADLINE)
        await self._settled()

    async def memory(self, total: int) -> None:
        """The operator's memory with so many outputs."""
        now, highest = memory_mib(self.operator.pid)
        self.say(f"memory at {total} outputs (highest {highest:.0f} MB)", f"{now:.0f} MB", "<= 200 MB", met=now <= 200)

    async def restart(self, total: int) -> None:
        """The operator is stopped and started; all Secrets are valid."""
        self.operator.stop()
        before = api_writes(self.cluster)
        begun = time.monotonic()
        self.operator.start()
        await wait_until(lambda: self.metric("machinebot_leader") == 1 and self._looked_at(total))
        seconds, cpu = time.monotonic() - begun, sum(cpu_seconds(self.operator.pid))
        await self._settled()
        written = difference(before, api_writes(self.cluster))
        writes = sum(count for name, count in written.items() if name != "leases")
        self.say(f"restart with {total} valid outputs: writes", f"{writes}", "0", met=writes == 0)
        self.say(f"restart: every output looked at ({cpu:.1f} s CPU)", f"{seconds:.1f} s", "<= 20 s", met=seconds <= 20)
        now, highest = memory_mib(self.operator.pid)
        self.say(f"memory after the restart (highest {highest:.0f} MB)", f"{now:.0f} MB", "<= 200 MB", met=now <= 200)

    async def latency(self, total: int) -> None:
        """One output after another, from apply to Ready, while many exist."""
        await load.apply_pairs(self.client, ["single"])
        taken = []
        for number in range(SINGLES):
            name = f"single-{number}"
            body = load.output(name)
            body["spec"]["bot"] = "single"
            begun = time.monotonic()
            await self.client.create(OUTPUTS, load.NAMESPACE, body)
            async with asyncio.timeout(60):
                while name not in self.follower.ready:
                    await asyncio.sleep(0.001)
            taken.append(1000 * (self.follower.ready[name] - begun))
        p99 = statistics.quantiles(taken, n=100)[98]
        self.say(
            f"one output while {total} exist, apply to Ready, median {statistics.median(taken):.0f} ms, p99",
            f"{p99:.0f} ms",
            "<= 500 ms",
            met=p99 <= 500,
        )

    async def rsa(self, count: int) -> None:
        """The same as `issue` with RSA keys, which have no budget: the key alone costs more than everything else."""
        before, cpu = len(self.follower.ready), sum(cpu_seconds(self.operator.pid))
        begun = time.monotonic()
        names = [f"rsa-{number}" for number in range(count)]
        await load.apply_pairs(self.client, names, privateKey={"algorithm": "RSA-2048"})
        await self.follower.wait(before + count, DEADLINE)
        seconds, cpu = time.monotonic() - begun, sum(cpu_seconds(self.operator.pid)) - cpu
        self.say(f"{count} bots with one RSA-2048 output each, applied at once, to Ready", f"{count / seconds:.0f} outputs/s")
        self.say("operator's CPU for each output with RSA-2048", f"{1000 * cpu / count:.2f} ms")

    async def _settled(self) -> None:
        """Returns when the operator has written nothing of ours for two seconds."""
        last: dict[str, int] = {}
        while (current := {name: api_writes(self.cluster).get(name, 0) for name in COUNTED[:-1]}) != last:
            last = current
            await asyncio.sleep(3)

    def _looked_at(self, total: int) -> bool:
        return self.metric('machinebot_reconcile_seconds_count{kind="MachineOutput"}') >= total

    def metric(self, name: str) -> float:
        """One sample of the operator's metrics; 0 where it is not there or does not answer."""
        try:
            metrics = self.operator.metrics()
        except OSError:
            return 0.0
        return metrics.get(name, 0.0)


async def run(pairs: int, full: int, directory: Path, report: Report) -> None:
    """Every measurement of outputs."""
    with start_control_plane(directory / "cluster") as cluster:
        configuration = await load_configuration(cluster.admin_kubeconfig)
        client = ApiServer(configuration, Metrics(CollectorRegistry()), timeout=60)
        cluster.kubectl("create", "namespace", load.NAMESPACE)
        release = install_chart(cluster, VALUES)
        bench = Bench(cluster, client, OperatorProcess.from_release(release, directory), report)
        report.heading(f"floor: the raw limits of this API server in this run, {load.AT_ONCE} requests at a time")
        for what, value in (await load.raw_limits(client, 2000)).items():
            bench.say(what, f"{value:.0f}/s")
        with bench.operator as operator:
            operator.wait_ready()
            cluster.kubectl("wait", "machineauthority", "default", "--for=condition=Ready", "--timeout=60s")
            await bench.follower.start()
            report.heading("operator")
            await bench.issue(pairs)
            if full > pairs:
                await bench.fill(full)
            total = max(pairs, full)
            await bench.memory(total)
            await bench.restart(total)
            await bench.latency(total)
            await bench.rsa(min(pairs, RSA_OUTPUTS))
            bench.follower.stop()
        await client.close()


VALUES: Final[dict[str, object]] = {}
"""Values of the chart beyond those that it needs."""


def main() -> int:
    """The command line; exit code 1 where a budget was missed."""
    parser = argparse.ArgumentParser(prog="bench", description="Measures the budgets of Machinebot on a real control plane.")
    parser.add_argument("--pairs", type=int, default=5000, help="bots with one output each that are applied at once")
    parser.add_argument("--full", type=int, default=10000, help="outputs for memory, restart and latency")
    parser.add_argument("--joins", type=int, default=3000, help="joins of each method that is measured")
    parser.add_argument("--joins-only", action="store_true", help="measure the join API alone")
    arguments = parser.parse_args()
    report = Report()
    with tempfile.TemporaryDirectory(prefix="machinebot-bench-") as directory:
        if not arguments.joins_only:
            asyncio.run(run(arguments.pairs, arguments.full, Path(directory), report))
        asyncio.run(joins.run(Path(directory), report, arguments.joins))
    return 0 if report.met else 1


if __name__ == "__main__":
    raise SystemExit(main())
