"""The operator, forked anew from warm modules whenever it is killed: a restart takes milliseconds, not seconds of imports.

Run in place of the image's entry point. Each child runs the product's own command line. The parent forks another one when a
child was killed, and ends as the child does when that ends by itself.
"""

import ctypes
import os
import signal
import sys
from typing import Final

import machinebot.app
import machinebot.logs  # noqa: F401 - warm, as the module above: the command line imports them when it runs
from machinebot.cli.main import app

PR_SET_PDEATHSIG: Final = 1
"""prctl(2): the child gets a signal when its parent dies."""


def main() -> None:
    parent = os.getpid()
    while True:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            app()
        signal.signal(signal.SIGTERM, lambda *_, child=child: os.kill(child, signal.SIGTERM))
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
