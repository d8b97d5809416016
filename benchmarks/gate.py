"""`python -m benchmarks.gate [--only rounds|ways|devices] [--quick] [--json]`: how far the gate's word can be trusted.

gate.false_alarm_rate      a file against itself, margin 2%: 1,000 replayed runs of real rounds
gate.power_3pct, _5pct     a file made 3% (5%) slower by an extra operator, same margin, within 60 s (120 s)
gate.inconclusive_rate     of those at 3%
gate.spread_vs_sequential  scatter of sequential medians / scatter of turns, as much time for each
harness.overhead_1ms       what timing adds to an inference of 1 ms
arm64.instruction_spread   the same file counted twice on an emulated core
transport.second_push_bytes  bytes of an artifact sent over ssh the second time

What docs/gate.md's plots are drawn from (`python -m docs.plots`) is kept beside the figures, in results/gate_*.jsonl.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import gate_devices
from benchmarks.gate_models import minilm
from benchmarks.gate_pool import TARGETS, Pool, collect
from benchmarks.gate_replay import Replays, replay
from benchmarks.gate_spread import deviation, spread, ways
from benchmarks.record import RESULTS, Figure, arguments, keep
from edgekit.artifact import Artifact
from edgekit.cli.console import Live

PARTS = ("rounds", "ways", "devices")
MARGIN = 1.02
BUDGET = 60.0  # seconds of a gate's run
FLOOR_BUDGET = 120.0  # and of one that looks for 5%
RUNS = 1000
POOL = 60  # rounds of each
TIMES = 8  # ratios by each way to measure


def main() -> None:
    options = arguments(__doc__ or "", PARTS)
    with tempfile.TemporaryDirectory() as work:
        for part in options.only or PARTS:  # each is kept at once: what took long is not lost if another fails
            folder = Path(work) / part
            folder.mkdir()
            figures, raw = _measured(part, folder, options.quick, Live())
            keep("gate", figures, options)
            if raw and not options.quick:
                lines = "".join(f"{json.dumps(line)}\n" for line in raw)
                (RESULTS / f"gate_{part}.jsonl").write_text(lines, encoding="utf-8")


def _measured(part: str, folder: Path, quick: bool, progress: Live) -> tuple[list[Figure], list[dict[str, object]]]:
    """A part's figures, and what its plot is drawn from."""
    if part == "rounds":
        pool = collect(folder, 30 if quick else POOL, progress)
        return _replayed(pool), [
            {"compared": name, "p50": [r.p50 for r in found]} for name, found in pool.rounds.items()
        ]
    if part == "ways":
        logs = _scattered(minilm(folder / "base"), folder, 3 if quick else TIMES, progress)
        return _spreads(logs), [{"way": name, "log_ratio": values} for name, values in logs.items()]
    counts, pushes = gate_devices.spread_of_counts(folder, progress), gate_devices.pushes(folder, progress)
    return [gate_devices.overhead(), *counts, *pushes], []


def _replayed(pool: Pool) -> list[Figure]:
    """Runs of the gate on the pool's rounds. Those of the slower files are moved to exactly 3% and 5%."""

    def runs(name: str, budget: float) -> tuple[Replays, str]:
        rounds = min(int(budget / pool.seconds), len(pool.rounds[name]) // 2)
        itself = name == "control"
        given = pool.rounds[name] if itself else pool.moved(name)
        found = replay(given, pool.rounds["control"], margin=MARGIN, rounds=rounds, runs=RUNS, seed=0, swap=itself)
        truth = pool.truth(name)
        told = (
            f"margin 2%, at most {rounds} rounds ({budget:.0f} s at {pool.seconds:.1f} s each), MiniLM int8, 32 tokens"
        )
        told += f"; {len(given)} rounds say {truth.value:.4f}x [{truth.low:.4f}, {truth.high:.4f}]"
        told += "" if itself else f", moved to {TARGETS[name]}x"
        told += f", scatter {pool.scatter(name):.2%}; a verdict after {found[1]:.0f} rounds (median)"
        return found, f"{told}; load average {pool.load:.1f}"

    def rate(figure: str, found: tuple[Replays, str], verdict: str) -> Figure:
        (verdicts, _), told = found
        value = verdicts[verdict] / RUNS
        return Figure(figure=figure, value=value, unit="1", n=RUNS, against="itself", conditions=told)

    itself, three, five = runs("control", BUDGET), runs("slower3", BUDGET), runs("slower5", FLOOR_BUDGET)
    return [
        rate("gate.false_alarm_rate", itself, "fail"),
        rate("gate.undecided_on_itself", itself, "inconclusive"),
        rate("gate.power_3pct", three, "fail"),
        rate("gate.inconclusive_rate", three, "inconclusive"),
        rate("gate.power_5pct", five, "fail"),
    ]


def _scattered(file: Artifact, folder: Path, times: int, progress: Live) -> dict[str, tuple[float, ...]]:
    found = {}
    for name, way in ways(file, folder, progress).items():
        try:
            found[name] = spread(way, times, name, progress)
        except subprocess.CalledProcessError as error:
            said = (error.stdout or b"").decode("utf-8", "replace").strip().splitlines()
            progress.say(f"{name} is left out: {said[-1] if said else error}")
    return found


def _spreads(logs: Mapping[str, Sequence[float]]) -> list[Figure]:
    turns = deviation(logs["turns"])
    found = []
    for name, values in logs.items():
        if name != "turns":
            told = f"rms of log ratios: {deviation(values):.4f} against {turns:.4f} by turns, about 12 s for each ratio"
            against = f"{name}, one side after the other"
            value = deviation(values) / turns
            found.append(
                Figure(
                    figure=f"gate.spread_vs_{name.replace('-', '_')}",
                    value=value,
                    unit="x",
                    against=against,
                    n=len(values),
                    conditions=told,
                )
            )
    return found


if __name__ == "__main__":
    main()
