"""How many test examples a margin of accuracy needs: told before a run, and beside a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Final

from edgekit.rules import DROPS, MAIN_METRICS, METRICS, SCORE_DROP, Rule
from edgekit.statistics import LEVEL, Drop

__all__ = ["accuracy_margin", "disagreement_of", "rows_needed", "sample_notes"]

POWER: Final = 0.8
TYPICAL: Final = (
    0.03  # of the examples, a compressed file and its parent differ in being right; before one has measured
)
Z: Final = NormalDist().inv_cdf(0.5 + LEVEL / 2)


def rows_needed(margin: float, disagreement: float, power: float = POWER) -> int:
    """Examples with which a file that is no worse is shown, with this power, to lose less than `margin` (a fraction).

    Shown: the 95% interval of the paired difference ends below the margin. `disagreement`: the share of the examples on
    which exactly one of the two files is right. Source: Connor 1987, Nam 1997. Raises ValueError for a margin that is
    not above 0, or a share outside (0, 1].
    """
    if not (margin > 0 and 0 < disagreement <= 1):
        raise ValueError("a margin above 0 and a disagreement in (0, 1] are needed")
    return math.ceil((Z + NormalDist().inv_cdf(power)) ** 2 * disagreement / margin**2)


def disagreement_of(drop: Drop, n: int) -> float:
    """The share of `n` examples on which exactly one was right, from the width of a paired difference's interval."""
    half = (drop.high - drop.low) / 2 / Z
    return min(1.0, half**2 * n + drop.value**2)


def accuracy_margin(rule: Rule) -> float | None:
    """How much accuracy, or of another main metric (a fraction), a rule lets a file lose against a baseline; None for
    other rules."""
    if rule.op not in ("<=", "<", ">=", ">"):
        return None
    factor = METRICS[rule.metric].units.get(rule.limit.unit, 1.0)
    if rule.metric in DROPS:
        return rule.limit.number * factor if rule.op in ("<=", "<") else None
    if rule.metric in MAIN_METRICS and rule.limit.kind == "offset" and rule.op in (">=", ">"):
        return -rule.limit.number * factor
    return None


def sample_notes(rules: Sequence[Rule], score: str, rows: int) -> tuple[str, ...]:
    """A sentence for each rule about accuracy that `rows` examples are probably too few for. `score`: the main metric
    of the task."""
    found = []
    for rule in rules:
        margin = accuracy_margin(rule)
        metric = score if rule.metric == SCORE_DROP else rule.metric
        if margin is None or margin <= 0 or not metric.startswith("accuracy"):
            continue  # of F1 no share of right answers is known beforehand
        needed = rows_needed(margin, TYPICAL)
        if rows < needed:
            found.append(
                f"{rule}: {rows:,} test examples are few for a margin of {margin * 100:.2g} points: "
                f"where two files differ on {TYPICAL:.0%} of the examples, it takes about {needed:,} to tell"
            )
    return tuple(found)
