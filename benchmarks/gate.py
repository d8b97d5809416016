"""`python -m benchmarks.gate [--quick] [--json]`: how far the gate's word can be trusted.

gate.false_alarm_rate      a file against itself, margin 2%: 1,000 replayed runs of real rounds
gate.power_3pct, _5pct     a file made 3% (5%) slower by an extra operator, same margin, within 60 s
gate.inconclusive_rate     of those at 3%
gate.spread_vs_sequential  scatter of sequential medians / scatter of turns, as much time for each
harness.overhead_1ms       what timing adds to an inference of 1 ms
arm64.instruction_spread   the same file counted twice on an emulated core
transport.second_push_bytes  bytes of an artifact sent over ssh the second time

Rounds are kept in results/gate_rounds.jsonl, which docs/gate.md's plots are drawn from (`python -m docs.plots`).
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import gate_devices
from benchmarks.gate_pool import Pool, collect
from benchmarks.gate_replay import Replays, replay
from benchmarks.gate_spread import deviation, spread, ways
from benchmarks.record import RESULTS, Figure, arguments, keep
from edgekit.artifact import Artifact
from edgekit.cli.console import Live

RAW = RESULTS / "gate_rounds.jsonl"
MARGIN = 1.02
BUDGET = 60.0  # seconds of a gate's run
RUNS = 1000
POOL = 50  # rounds of each
TIMES = 8  # ratios by each way to measure


def main() -> None:
    options = arguments(__doc__ or "")
    progress = Live()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        pool = collect(folder, 30 if options.quick else POOL, progress)
        figures = _replayed(pool)
        if not options.quick:
            _keep_rounds(pool)  # now: what took longest is not lost if a peer fails
        logs = _scattered(Artifact.open(folder / "base"), folder, 3 if options.quick else TIMES, progress)
        figures += _spreads(logs)
        figures.append(gate_devices.overhead())
        figures += gate_devices.spread_of_counts(folder, progress)
        figures += gate_devices.pushes(folder, progress)
    if not options.quick:
        _keep_ways(logs)
    keep("gate", figures, options)


def _replayed(pool: Pool) -> list[Figure]:
    rounds = min(int(BUDGET / pool.seconds), len(pool.rounds["slower3"]) // 2)
    told = f"margin 2%, at most {rounds} rounds ({BUDGET:.0f} s at {pool.seconds:.1f} s each), MiniLM int8, 32 tokens"

    def runs(name: str) -> Replays:
        controls = pool.rounds["control"]
        return replay(
            pool.rounds[name], controls, margin=MARGIN, rounds=rounds, runs=RUNS, seed=0, swap=name == "control"
        )

    itself, three, five = (runs(name) for name in ("control", "slower3", "slower5"))

    def rate(figure: str, found: Replays, verdict: str, name: str) -> Figure:
        truth = f"truly {pool.ratio(name):.4f}x over {len(pool.rounds[name])} rounds"
        seen = f"a verdict after {found[1]:.0f} rounds (median)"
        value = found[0][verdict] / RUNS
        return Figure(
            figure=figure, value=value, unit="1", n=RUNS, against="itself", conditions=f"{told}; {truth}; {seen}"
        )

    return [
        rate("gate.false_alarm_rate", itself, "fail", "control"),
        rate("gate.undecided_on_itself", itself, "inconclusive", "control"),
        rate("gate.power_3pct", three, "fail", "slower3"),
        rate("gate.inconclusive_rate", three, "inconclusive", "slower3"),
        rate("gate.power_5pct", five, "fail", "slower5"),
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


def _keep_rounds(pool: Pool) -> None:
    RESULTS.mkdir(exist_ok=True)
    with RAW.open("w", encoding="utf-8") as file:
        for name, rounds in pool.rounds.items():
            file.write(json.dumps({"compared": name, "p50": [round(r.p50, 5) for r in rounds]}) + "\n")


def _keep_ways(logs: Mapping[str, Sequence[float]]) -> None:
    with RAW.open("a", encoding="utf-8") as file:
        for name, values in logs.items():
            file.write(json.dumps({"way": name, "log_ratio": [round(value, 5) for value in values]}) + "\n")


if __name__ == "__main__":
    main()
