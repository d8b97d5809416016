"""Replaying rounds as runs of the gate: how often it is wrong, and how often it can tell."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from statistics import median

from edgekit.gate.turns import too_noisy
from edgekit.report.schema import Control, RoundRatio
from edgekit.rounds import over_rounds
from edgekit.rules import parse_rule
from edgekit.sequential import Verdict, decide

__all__ = ["Replays", "replay"]

FIRST_LOOK = 8  # rounds that every run has
Replays = tuple[Counter[str], float]  # verdicts, median number of rounds until one


def replay(
    candidate: Sequence[RoundRatio],
    control: Sequence[RoundRatio],
    *,
    margin: float,
    rounds: int,
    runs: int,
    seed: int,
    swap: bool,
) -> Replays:
    """`runs` runs of the gate, each of at most `rounds` rounds drawn without replacement from real ones.

    It looks after every round and stops when it can tell. `swap`: the two sides of a pair trade places at random, which
    for a file against itself changes nothing but makes more runs different.
    """
    dice, verdicts, needed = random.Random(seed), Counter[str](), []
    for _ in range(runs):
        chosen = dice.sample(range(len(candidate)), rounds)
        logs = [math.log(candidate[at].p50) * (-1 if swap and dice.random() < 0.5 else 1) for at in chosen]
        controls = [control[at % len(control)] for at in dice.sample(range(len(control)), rounds)]
        verdict, seen = _one(logs, controls, margin)
        verdicts[verdict] += 1
        needed.append(seen)
    return verdicts, median(needed)


def _one(logs: Sequence[float], controls: Sequence[RoundRatio], margin: float) -> tuple[Verdict, int]:
    """As `edgekit.gate.turns` judges it: decided by the sequential test, at a look when the control allows it."""
    rule = parse_rule(f"latency.p50 <= {margin}x baseline")
    decision = decide(logs, margin)
    if decision.verdict != "inconclusive":
        for seen in range(max(FIRST_LOOK, decision.rounds), len(logs) + 1):
            so_far = tuple(controls[:seen])
            control = Control(**over_rounds(so_far).model_dump(), rounds=so_far)
            if not too_noisy(rule, control, margin, math.exp(median(logs[:seen]))):
                return decision.verdict, seen
    return "inconclusive", len(logs)
