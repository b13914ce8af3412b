"""`python -m demo`: tells the story, then stays for a person to look around until Ctrl-C; with CI=true it ends by itself."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from controlplane.cluster import KubectlError
from controlplane.golang import GoMissingError
from controlplane.processes import ProgramError
from demo.narration import Narrator
from demo.story import POLL_SECONDS, STEPS, Demo, Stage, StepError, command_line
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


def main() -> int:
    """Run the demo; returns the exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):  # SIGINT too: a shell that starts us in the background has it ignored
        signal.signal(number, _interrupt)
    tell = Narrator(sys.stdout, STEPS)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="machinebot-demo-", ignore_cleanup_errors=True) as directory:
        demo = Demo(tell, Path(directory))
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
    path = os.pathsep.join(map(str, stage.cluster.binaries.directories))
    tell.say("\nEverything runs on until you press Ctrl-C. In another terminal:")
    tell.say(f'\n  export KUBECONFIG={stage.cluster.admin_kubeconfig} PATH="{path}:$PATH"')
    for text, line in SUGGESTIONS:
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


SUGGESTIONS = (
    (
        "delete a credential, and see it come back",
        "kubectl delete secret deployer-ssh -n ci; sleep 1; kubectl get secret deployer-ssh -n ci",
    ),
    (
        "spoil one, and see it repaired; the event says why",
        """kubectl patch secret backup -n ci -p '{"data":{"key":"c3BvaWx0"}}'; sleep 1; kubectl get events -n ci""",
    ),
    ("which login came from where, and why it lives so long", "kubectl get mout deployer -n ci -o yaml"),
    (
        "take the login away: the role denies it now, and the output says NoLogins",
        """kubectl patch mrole deploy --type=merge -p '{"spec":{"deny":{"logins":["deploy"]}}}'; sleep 1; kubectl get mout -A""",
    ),
    ("give it back", """kubectl patch mrole deploy --type=merge -p '{"spec":{"deny":null}}'"""),
    (
        "ask for too much: refused, with what to write instead",
        """kubectl patch mauth default --type=merge -p '{"spec":{"maxTTL":"48h"}}'""",
    ),
)
"""What to try next, and the command."""


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
