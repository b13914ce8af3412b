"""What the kernel says about a process: CPU time and memory (proc(5))."""

import os
from pathlib import Path

MIB = 1024


def cpu_seconds(pid: int) -> tuple[float, float]:
    """User and system time of a process so far, seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    tick = os.sysconf("SC_CLK_TCK")
    return int(fields[11]) / tick, int(fields[12]) / tick


def memory_mib(pid: int) -> tuple[float, float]:
    """Resident memory of a process: now and at its highest, MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    values = {name: line.split() for line in lines for name in [line.partition(":")[0]]}
    return int(values["VmRSS"][1]) / MIB, int(values["VmHWM"][1]) / MIB


def busy_seconds() -> float:
    """Processor time that all processes of this machine have used so far, seconds."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
