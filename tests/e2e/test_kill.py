"""The operator killed again and again while it issues: in the end everything is there, whole, and was made once."""

import functools
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from controlplane.cluster import ControlPlane
from e2e.support.audit import AuditTail
from e2e.support.objects import EVERYWHERE, bot, create, is_ready, items, names, output
from e2e.support.respawned import Respawned
from e2e.support.whole import check_whole
from support.waiting import eventually
from workbench.chart import Release

pytestmark = pytest.mark.cluster

SEED = 7
KILLS = 50
BATCH = 4
"""Outputs of one bot that are applied before each kill, so that there is always work under way."""

NAMESPACE = "killed"


def test_fifty_kills_while_two_hundred_outputs_are_issued(rough_plane: ControlPlane, rough_release: Release, tmp_path: Path):
    dice = random.Random(SEED)  # noqa: S311 - moments, not secrets
    audit = AuditTail(rough_plane)
    rough_plane.kubectl("create", "namespace", NAMESPACE)
    in_the_middle = 0
    with Respawned.from_release(rough_release, tmp_path, flags={"--workers": "4"}) as operator:
        for number in range(KILLS):
            made = [output(NAMESPACE, f"o-{number}-{each}", f"b-{number}") for each in range(BATCH)]
            create(rough_plane, bot(NAMESPACE, f"b-{number}", EVERYWHERE), *made)
            applied = BATCH * (number + 1)
            # Some right after a start, in the middle of the first look; most after a certain Secret, up to the last.
            if dice.random() < 0.8:
                goal = dice.randint(audit.count(NAMESPACE, "create"), applied)
                eventually(f"{goal} Secrets are made", functools.partial(_made, audit, goal), interval=0.001)
            time.sleep(dice.uniform(0, 0.03))
            operator.kill_child()
            in_the_middle += audit.count(NAMESPACE, "create") < applied
        total = KILLS * BATCH
        eventually("all are Ready", lambda: _ready(rough_plane) == total, interval=0.5)
        assert operator.kills == KILLS
        assert operator.stop() == 0
    assert in_the_middle > KILLS // 4, "the kills came too late to disturb anything"

    outputs = items(rough_plane, "machineoutputs", NAMESPACE)
    secrets = {secret["metadata"]["name"]: secret for secret in items(rough_plane, "secrets", NAMESPACE)}
    assert sorted(secrets) == names(outputs)
    for each in outputs:
        check_whole(each, secrets[each["metadata"]["name"]])
        assert each["status"]["issueReason"] == "SecretMissing"
    assert audit.tally(NAMESPACE).keys() == secrets.keys()
    assert audit.odd(NAMESPACE, Counter(create=1)) == {}


def _made(audit: AuditTail, goal: int) -> bool:
    return audit.count(NAMESPACE, "create") >= goal


def _ready(cluster: ControlPlane) -> int:
    return sum(map(is_ready, items(cluster, "machineoutputs", NAMESPACE)))
