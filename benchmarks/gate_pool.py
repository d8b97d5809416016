"""Rounds of real measurements that the gate's benchmark replays: a file against itself, and against slower ones."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.gate_models import LENGTH, extra_operator, minilm, texts
from edgekit.artifact import Artifact
from edgekit.bench import measure
from edgekit.progress import Progress
from edgekit.report.schema import RoundRatio
from edgekit.runtimes import Workload

__all__ = ["Pool", "collect"]

TARGETS = {"slower3": 1.03, "slower5": 1.05}
ROWS = 32  # of the extra operator, where calibration begins
PASSES = 2  # of the calibration
AT_ONCE = 3  # as in a gate's run: the baseline, itself again, and one candidate


@dataclass(frozen=True)
class Pool:
    """Rounds by what was compared with the baseline ("control": itself), and the seconds that one sitting takes."""

    rounds: Mapping[str, tuple[RoundRatio, ...]]
    seconds: float

    def ratio(self, name: str) -> float:
        """How much slower it truly is, as far as all its rounds can tell."""
        return float(np.exp(np.median([np.log(found.p50) for found in self.rounds[name]])))


def collect(folder: Path, rounds: int, progress: Progress) -> Pool:
    """Build the files, find how large an operator makes them 3% and 5% slower, and measure `rounds` rounds of each."""
    base = minilm(folder / "base")
    slower = _calibrated(base, folder, progress)
    start = time.monotonic()
    bench = measure({"base": base, **slower}, "base", texts(), _workload(rounds), progress=progress)
    sittings = rounds * len(slower)
    found = {name: bench.measurements[name].rounds for name in slower}
    return Pool({"control": bench.control_rounds, **found}, (time.monotonic() - start) / sittings)


def _workload(rounds: int) -> Workload:
    return Workload(rounds=rounds, length=LENGTH, at_once=AT_ONCE, throughput_batches=())


def _calibrated(base: Artifact, folder: Path, progress: Progress) -> dict[str, Artifact]:
    """Files whose extra operator costs what TARGETS say: taken as linear in its rows, then measured again."""
    rows = dict.fromkeys(TARGETS, ROWS)
    found: dict[str, Artifact] = {}
    for number in range(PASSES):
        found = {name: extra_operator(base, folder / f"{name}-{number}", rows[name]) for name in TARGETS}
        bench = measure({"base": base, **found}, "base", texts(), _workload(8 + 4 * number), progress=progress)
        for name, target in TARGETS.items():
            ratio = float(np.exp(np.median([np.log(r.p50) for r in bench.measurements[name].rounds])))
            progress.say(f"{name}: {rows[name]} rows make it {ratio:.4f} times as slow")
            rows[name] = max(1, round(rows[name] * (target - 1) / max(ratio - 1, 0.002)))
    return {name: extra_operator(base, folder / name, rows[name]) for name in TARGETS}
