"""Kubernetes Events (events.k8s.io/v1): posted in the background, bounded, and never in the way of the work."""

import asyncio
import hashlib
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from machinebot.errors import MachinebotError
from machinebot.kube.client import Json, KubeClient
from machinebot.kube.resources import EVENTS
from machinebot.metrics import Metrics
from machinebot.resources.meta import API_VERSION

log = logging.getLogger(__name__)

MAX_WAITING: Final = 1000
"""Events that may wait; more are dropped and counted, as client-go's broadcaster does."""

PER_SECOND: Final = 20
"""Events a second in the long run: a storm of them must not slow down what they tell about."""

MAX_NOTE: Final = 1024
"""Bytes of a note (events.k8s.io/v1)."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What an Event is about."""

    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str = ""


class EventRecorder:
    """Takes Events without waiting and posts them one by one."""

    def __init__(self, client: KubeClient, metrics: Metrics, *, instance: str) -> None:
        self._client = client
        self._metrics = metrics
        self._instance = instance[:128]
        self._waiting: asyncio.Queue[tuple[str, Json]] = asyncio.Queue(MAX_WAITING)
        self._last: dict[str, str] = {}

    def record(self, subject: Subject, kind: Literal["Normal", "Warning"], reason: str, note: str, *, action: str) -> None:
        """Notes an Event. The same thing said twice in a row about an object is said once.

        Args:
            subject: The object.
            kind: Normal or Warning.
            reason: CamelCase word.
            note: A sentence. Never holds a secret.
            action: What was done: `Issue`, `Join`, ...
        """
        said = f"{kind}/{reason}/{note}"
        if kind == "Warning" and self._last.get(subject.uid) == said:
            return
        self._last[subject.uid] = said
        if len(self._last) > MAX_WAITING:
            self._last.pop(next(iter(self._last)))
        namespace = subject.namespace or "default"
        body = _event(subject, namespace, kind, reason, note, action=action, instance=self._instance)
        try:
            self._waiting.put_nowait((namespace, body))
        except asyncio.QueueFull:
            self._metrics.events_dropped.inc()

    async def run(self) -> None:
        """Posts what waits, at most `PER_SECOND`, for ever."""
        while True:
            namespace, body = await self._waiting.get()
            try:
                await self._client.create(EVENTS, namespace, body)
            except MachinebotError as error:
                self._metrics.events_dropped.inc()
                log.debug("event not posted", extra={"reason": error.reason})
            await asyncio.sleep(1 / PER_SECOND)


def _event(subject: Subject, namespace: str, kind: str, reason: str, note: str, *, action: str, instance: str) -> Json:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    digest = hashlib.sha256(f"{subject.uid}{now}{reason}{note}".encode()).hexdigest()[:16]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{subject.name[:230]}.{digest}", "namespace": namespace},
        "eventTime": now,
        "reportingController": "machinebot.dev/operator",
        "reportingInstance": instance,
        "action": action,
        "reason": reason,
        "type": kind,
        "note": note.encode()[:MAX_NOTE].decode(errors="ignore"),
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": subject.kind,
            "namespace": subject.namespace,
            "name": subject.name,
            "uid": subject.uid,
            "resourceVersion": subject.resource_version,
        },
    }
