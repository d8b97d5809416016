"""Where timed work runs: on processors of its own, as far as the system lets it. Linux; elsewhere nothing is done.

Threads that wander give every process a speed of its own: on a shared machine the same file took 30% longer in one
process than in the next, from its start to its end, by the processor that its main thread happened to sit on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

CPUS = Path("/sys/devices/system/cpu")
STAT = Path("/proc/stat")
WATCHED = 0.2  # seconds, to see which processors others use
IDLE = (3, 4)  # columns of /proc/stat: idle, and waiting for a disk


def settle(threads: int) -> None:
    """Hold this process, and what it starts, to the `threads` processors that are fastest and least used, of different
    cores; and be served before others, where that is allowed. Left as it is where there are not as many cores."""
    if not hasattr(os, "sched_setaffinity"):
        return
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    allowed = sorted(os.sched_getaffinity(0))
    chosen = choose(allowed, threads, busy(allowed)) if len(allowed) > threads else allowed
    if len(chosen) == threads:
        os.sched_setaffinity(0, chosen)


def own_processors(threads: int) -> list[int]:
    """A processor for each of `threads` threads of this process; empty where it is not held to just as many."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return allowed if len(allowed) == threads else []


def choose(allowed: Iterable[int], threads: int, used: dict[int, float]) -> list[int]:
    """The best `threads` processors, one of each core; fewer where there are not as many cores."""
    cores: dict[str, int] = {}
    for cpu in sorted(allowed, key=lambda cpu: (-speed(cpu), used.get(cpu, 0.0))):
        cores.setdefault(known(cpu, "topology/thread_siblings_list", str(cpu)), cpu)
    return sorted(list(cores.values())[:threads])


def speed(cpu: int) -> int:
    """A number that is larger for a faster kind of core, where a machine has several kinds."""
    return int(known(cpu, "cpu_capacity", "") or known(cpu, "cpufreq/cpuinfo_max_freq", "0"))


def busy(allowed: Iterable[int]) -> dict[int, float]:
    """The share of a moment that each processor worked, to a tenth."""
    before = ticks()
    time.sleep(WATCHED)
    after, found = ticks(), {}
    for cpu in set(allowed) & before.keys() & after.keys():
        spent = [b - a for a, b in zip(before[cpu], after[cpu], strict=True)]
        found[cpu] = round(1 - sum(spent[at] for at in IDLE) / max(1, sum(spent)), 1)
    return found


def ticks() -> dict[int, list[int]]:
    """/proc/stat by processor; empty where it is not shown (Android)."""
    with suppress(OSError):
        rows = [line.split() for line in STAT.read_text(encoding="utf-8").splitlines()]
        return {int(row[0][3:]): [int(n) for n in row[1:9]] for row in rows if row and row[0][:3] == "cpu" != row[0]}
    return {}


def known(cpu: int, name: str, otherwise: str) -> str:
    """What the system says of a processor."""
    with suppress(OSError):
        return (CPUS / f"cpu{cpu}" / name).read_text(encoding="utf-8").strip()
    return otherwise
