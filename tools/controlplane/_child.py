"""Becomes another program that the kernel kills as soon as its parent dies. Run as a file: `_child.py PARENT-PID PROGRAM ARG...`.

A `preexec_fn` would do the same between fork and exec of a process with threads, where Python code may deadlock.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""prctl(2), linux/prctl.h."""
PARENT_GONE = 3
"""Exit code when there is no parent left to work for."""


def die_with_parent(parent: int) -> None:
    """Ask for SIGKILL at the parent's death; it stays in force across exec. Linux alone has it, elsewhere nothing is done.

    Raises:
        OSError: the kernel refused.
        SystemExit: the parent died before we could ask.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it died between fork and prctl: no signal will ever come
        sys.exit(PARENT_GONE)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606  # there is no shell to want
