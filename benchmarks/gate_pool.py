"""Rounds of real measurements that the gate's benchmark replays: a file against itself, and against slower ones."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from benchmarks.gate_models import LENGTH, extra_operator, minilm, texts
from edgekit.artifact import Artifact
from edgekit.bench import measure
from edgekit.progress import Progress
from edgekit.report.schema import RoundRatio
from edgekit.runtimes import Workload
from edgekit.statistics import Interval, median_interval

__all__ = ["TARGETS", "Pool", "collect"]

TARGETS = {"slower3": 1.03, "slower5": 1.05}
ROWS = 32  # of the extra operator, where calibration begins
PASSES = (12, 20)  # rounds of each pass of the calibration


@dataclass(frozen=True)
class Pool:
    """Rounds by what was compared with the baseline ("control": itself), the seconds that one sitting takes, and the
    machine's load average meanwhile (its own included)."""

    rounds: Mapping[str, tuple[RoundRatio, ...]]
    seconds: float
    load: float

    def truth(self, name: str) -> Interval:
        """How much slower it truly is, as far as all its rounds can tell."""
        return median_interval([found.p50 for found in self.rounds[name]])

    def scatter(self, name: str) -> float:
        """Standard deviation of its rounds' log ratios, from their quartiles: wild rounds do not count."""
        low, _, high = quantiles([math.log(found.p50) for found in self.rounds[name]], n=4)
        return (high - low) / 1.349

    def moved(self, name: str) -> tuple[RoundRatio, ...]:
        """Its rounds, moved so that all together they say what it was meant to be: what calibration missed."""
        off = TARGETS[name] / self.truth(name).value
        return tuple(found.model_copy(update={"p50": found.p50 * off}) for found in self.rounds[name])


def collect(folder: Path, rounds: int, progress: Progress) -> Pool:
    """Build the files, find how large an operator makes them 3% and 5% slower, and measure `rounds` rounds of each."""
    base = minilm(folder / "base")
    slower = _calibrated(base, folder, progress)
    start, loads = time.monotonic(), [os.getloadavg()[0]]
    found: dict[str, tuple[RoundRatio, ...]] = {"control": ()}
    for name, artifact in slower.items():  # each alone with the baseline, as in a gate's run
        bench = measure({"base": base, name: artifact}, "base", texts(), _workload(rounds), progress=progress)
        found[name] = bench.measurements[name].rounds
        found["control"] += bench.control_rounds
    seconds = (time.monotonic() - start) / (rounds * len(slower))
    loads.append(os.getloadavg()[0])
    return Pool(found, seconds, sum(loads) / 2)


def _workload(rounds: int) -> Workload:
    return Workload(rounds=rounds, length=LENGTH, throughput_batches=())


def _calibrated(base: Artifact, folder: Path, progress: Progress) -> dict[str, Artifact]:
    """Files whose extra operator costs what TARGETS say: taken as linear in its rows, then measured again."""
    rows = dict.fromkeys(TARGETS, ROWS)
    found: dict[str, Artifact] = {}
    for number, rounds in enumerate(PASSES):
        found = {name: extra_operator(base, folder / f"{name}-{number}", rows[name]) for name in TARGETS}
        bench = measure({"base": base, **found}, "base", texts(), _workload(rounds), progress=progress)
        for name, target in TARGETS.items():
            ratio = median(found.p50 for found in bench.measurements[name].rounds)
            progress.say(f"{name}: {rows[name]} rows make it {ratio:.4f} times as slow")
            step = (target - 1) / max(ratio - 1, 0.005)
            rows[name] = max(1, round(rows[name] * min(3.0, max(0.3, step))))
    return {name: extra_operator(base, folder / name, rows[name]) for name in TARGETS}
