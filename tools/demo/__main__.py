"""`python -m demo [--agent]`: tells a story, then stays for a person until Ctrl-C; with CI=true it ends by itself."""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from controlplane.cluster import KubectlError
from controlplane.golang import GoMissingError
from controlplane.processes import ProgramError
from demo.agents import AgentDemo
from demo.narration import Narrator
from demo.story import POLL_SECONDS, Demo, Stage, StepError, command_line
from workbench.chart import HelmError
from workbench.programs import ProgramMissingError

FAILURES = (
    StepError,
    KubectlError,
    ProgramError,
    HelmError,
    GoMissingError,
    ProgramMissingError,
    OSError,
    subprocess.SubprocessError,
)
"""What a step fails with."""

PROGRAMS = Path(sys.executable).parent
"""Where `machinebot` is, which the suggestions use."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(prog="demo", description="Machinebot on a real control plane, told step by step.")
    parser.add_argument("--agent", action="store_true", help="the story of machines outside of the cluster")
    story = AgentDemo if parser.parse_args(arguments).agent else Demo
    for number in (signal.SIGTERM, signal.SIGINT):  # SIGINT too: a shell that starts us in the background has it ignored
        signal.signal(number, _interrupt)
    tell = Narrator(sys.stdout, story.steps)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="machinebot-demo-", ignore_cleanup_errors=True) as directory:
        demo = story(tell, Path(directory))
        try:
            with demo.run() as stage:
                tell.say(f"\nAll of it took {time.monotonic() - begun:.0f} s.")
                if os.environ.get("CI") == "true":
                    return 0
                return _stay(tell, stage)
        except FAILURES as error:
            print(f"\nThe demo failed: {error}\n\nThe end of the operator's log:\n{demo.operator_log()}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            tell.say("\nStopped.")
            return 128 + signal.SIGINT


def _stay(tell: Narrator, stage: Stage) -> int:
    """Wait for Ctrl-C; everything runs on meanwhile."""
    path = os.pathsep.join(map(str, (*stage.cluster.binaries.directories, PROGRAMS)))
    tell.say("\nEverything runs on until you press Ctrl-C. In another terminal:")
    tell.say(f'\n  export KUBECONFIG={stage.cluster.admin_kubeconfig} PATH="{path}:$PATH"')
    for text, line in stage.suggestions:
        tell.say(f"\n  # {text}\n  {line}")
    tell.say(f"\n  # log in yourself\n  {command_line(stage.server, stage.files)}")
    tell.say(f"\n  # what the operator says, and its metrics\n  tail -f {stage.operator.log}")
    tell.say(f"  curl -s {stage.operator.url}/metrics | grep ^machinebot_")
    try:
        while True:
            stage.cluster.check()
            if not stage.operator.running:
                raise StepError("the operator has ended")
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        tell.say("\nStopping; nothing stays behind.")
        return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
