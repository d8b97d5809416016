"""Which processors timed work is held to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import placement
import pytest

from edgekit.jobs import WORKERS

linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not hold work to processors")
HELD = """
import os
import placement
placement.settle({threads})
print(sorted(os.sched_getaffinity(0)), placement.own_processors({threads}))
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six processors: 0 and 1 share a fast core, 2 and 3 another; 4 and 5 are slow cores of their own."""
    monkeypatch.setattr(placement, "CPUS", tmp_path)
    for cpu, (siblings, speed) in enumerate([("0-1", 3000)] * 2 + [("2-3", 3000)] * 2 + [("4", 2000), ("5", 2000)]):
        for name, content in {"topology/thread_siblings_list": siblings, "cpufreq/cpuinfo_max_freq": speed}.items():
            path = tmp_path / f"cpu{cpu}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("threads", "used", "chosen"),
    [
        (1, {}, [0]),
        (1, {0: 0.9, 1: 0.9, 2: 0.5, 3: 0.1}, [3]),  # of the fast cores the idlest
        (2, {0: 0.9}, [1, 2]),  # of each core one
        (3, {4: 1.0}, [0, 2, 5]),
        (5, {}, [0, 2, 4, 5]),  # there are four cores
    ],
)
def test_fast_and_idle_processors_of_different_cores(
    machine: Path, threads: int, used: dict[int, float], chosen: list[int]
) -> None:
    assert placement.choose(range(6), threads, used) == chosen


def test_a_phones_own_measure_of_speed_comes_first(machine: Path) -> None:
    (machine / "cpu5" / "cpu_capacity").write_text("9000\n", encoding="utf-8")
    assert placement.choose(range(6), 1, {}) == [5]


def test_a_system_that_says_nothing_has_equal_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "CPUS", tmp_path)
    monkeypatch.setattr(placement, "STAT", tmp_path / "stat")
    assert placement.busy([0, 1]) == {}
    assert placement.choose([3, 4, 5], 2, {3: 0.5}) == [4, 5]


@linux
def test_work_is_held_to_as_many_processors_as_it_has_threads() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    for threads in (1, len(allowed) + 1):
        code = HELD.format(threads=threads)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=WORKERS)
        if threads == 1:
            assert done.stdout.strip() in [f"[{cpu}] [{cpu}]" for cpu in allowed]
        else:
            assert done.stdout.strip() == f"{allowed} []"
