"""Draw docs/images/ from benchmarks/results/: `python -m docs.plots`. Needs edgekit[plots]."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results"
MARGIN = 1.02
WAYS = {
    "turns": "edgekit\n(turns)",
    "sequential": "plain loops,\nmedians",
    "pytest-benchmark": "pytest-\nbenchmark",
    "hyperfine": "hyperfine",
}
COMPARED = ("control", "slower3", "slower5")


def main() -> None:
    mpl.rcParams["svg.hashsalt"] = "edgekit"  # the same bytes each time
    (HERE / "images").mkdir(exist_ok=True)
    _rounds({row["compared"]: row["p50"] for row in _rows("gate_rounds.jsonl")})
    _ways({row["way"]: row["log_ratio"] for row in _rows("gate_ways.jsonl")})


def _rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (RESULTS / name).read_text(encoding="utf-8").splitlines()]


def _rounds(rounds: dict[str, list[float]]) -> None:
    """Every round's ratio, by what was compared, with the margin."""
    figure, axes = plt.subplots(figsize=(7, 3.2))
    told = []
    for at, name in enumerate(COMPARED):
        values = rounds[name]
        spread = [at + 0.5 * (i / len(values) - 0.5) for i in range(len(values))]
        axes.scatter(spread, values, s=7, alpha=0.6)
        middle = sorted(values)[len(values) // 2]
        told.append("against itself" if name == "control" else f"{(middle - 1) * 100:.1f}% slower")
        axes.hlines(middle, at - 0.3, at + 0.3, colors="black", linewidth=1.2)
    axes.axhline(MARGIN, linestyle="--", linewidth=1, color="gray")
    axes.text(2.45, MARGIN, " margin", va="center", fontsize=8, color="gray")
    axes.set_xticks(range(len(COMPARED)), told)
    axes.set_ylim(0.94, 1.12)
    axes.set_ylabel("time / baseline's time, a round")
    _save(figure, "gate-rounds.svg")


def _ways(ways: dict[str, list[float]]) -> None:
    """How far each way's A/A ratios lie from 1."""
    figure, axes = plt.subplots(figsize=(7, 3.2))
    for at, name in enumerate(name for name in WAYS if name in ways):
        axes.scatter([at] * len(ways[name]), [100 * value for value in ways[name]], s=14, alpha=0.6)
    axes.axhline(0, linewidth=1, color="gray")
    axes.set_xticks(range(sum(name in ways for name in WAYS)), [WAYS[name] for name in WAYS if name in ways])
    axes.set_ylabel("A/A ratio, % off 1")
    _save(figure, "gate-spread.svg")


def _save(figure: Any, name: str) -> None:
    figure.tight_layout()
    figure.savefig(HERE / "images" / name, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
