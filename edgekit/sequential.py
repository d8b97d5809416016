"""Decide, round by round, on which side of a margin the median ratio lies; valid however often one looks.

A bet is a factor 1 + w tanh(s (x - m)) for each round's log ratio x, with m the log of the margin. Where the median of
x is at most m, and x is as likely to lie any distance above its median as below it, the factor's mean is at most 1
(tanh is odd and rises), whatever came before; the product of the factors is then a test supermartingale, and so is the
mean of several products. Ville's inequality: it ever reaches 1/alpha with probability at most alpha. So one may look
after every round, and stop at will.

The symmetry holds exactly for a file against itself: the two trade places. It bounds what one round can say: it counts
for at most twice, so one wild round convinces nobody, and a decision at alpha = 0.005 takes nine rounds at the least.

Sources: Ville 1939; Ramdas, Ruf, Larsson & Koolen 2020 (test martingales of symmetric distributions); Waudby-Smith &
Ramdas 2024 (betting); Howard, Ramdas, McAuliffe & Sekhon 2021 (confidence sequences).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from statistics import median
from typing import Final, Literal

from edgekit.artifact import Frozen
from edgekit.statistics import ALPHA, Interval

__all__ = ["GATE_ALPHA", "Decision", "Verdict", "decide", "sequence"]

Verdict = Literal["pass", "fail", "inconclusive"]

GATE_ALPHA: Final = 0.005
# (s, w): a bet stands in full beyond about 4%, 2% and 1%; the one that wild rounds turn against soonest is less bold.
BETS: Final = ((50.0, 0.95), (100.0, 0.95), (200.0, 0.8))
FAR: Final = 0.2  # log ratio at which every bet stands in full
STEPS: Final = 40  # of a bisection


class Decision(Frozen):
    """`verdict`: "pass" where the ratio lies below the margin, "fail" where above. `below`, `above`: the evidence for
    each, at its largest (1: none; 1/alpha decides); `rounds`: how many were seen when it was decided, else all."""

    verdict: Verdict
    below: float
    above: float
    rounds: int


def decide(log_ratios: Sequence[float], margin: float, alpha: float = GATE_ALPHA) -> Decision:
    """On which side of `margin` (a ratio, above 0) the median ratio lies; wrong with probability at most `alpha`.

    Raises ValueError for a log ratio that is not finite, or a margin that is not above 0.
    """
    if not (math.isfinite(margin) and margin > 0):
        raise ValueError(f"a margin is a ratio above 0, not {margin}")
    _check(log_ratios)
    below, above = _evidence(log_ratios, math.log(margin), -1), _evidence(log_ratios, math.log(margin), +1)
    threshold = -math.log(alpha)
    verdict: Verdict = "inconclusive"
    rounds = len(log_ratios)
    for seen, (down, up) in enumerate(zip(below, above, strict=True), 1):
        if max(down, up) >= threshold:
            verdict, rounds = "pass" if down > up else "fail", seen
            break
    return Decision(verdict=verdict, below=_largest(below), above=_largest(above), rounds=rounds)


def sequence(log_ratios: Sequence[float], alpha: float = ALPHA) -> Interval:
    """The median ratio, and a confidence sequence for it: covers at every look with probability 1 - `alpha`.

    An end that the rounds do not reach yet is 0 or infinite. Raises ValueError for no rounds, or one not finite.
    """
    if not log_ratios:
        raise ValueError("no rounds")
    _check(log_ratios)
    value = math.exp(median(log_ratios))
    low, high = _end(log_ratios, alpha / 2, +1), _end(log_ratios, alpha / 2, -1)
    return Interval(value=value, low=min(value, math.exp(low)), high=max(value, math.exp(high)))


def _check(log_ratios: Sequence[float]) -> None:
    if not all(math.isfinite(x) for x in log_ratios):
        raise ValueError("a log ratio is not finite")


def _evidence(log_ratios: Sequence[float], center: float, side: int) -> list[float]:
    """Log of the evidence, after each round, that the median lies above (`side` +1) or below (-1) `center`."""
    bets = [
        list(accumulate(math.log1p(stake * math.tanh(side * scale * (x - center))) for x in log_ratios))
        for scale, stake in BETS
    ]
    return [_log_mean(column) for column in zip(*bets, strict=True)]


def _log_mean(logs: Sequence[float]) -> float:
    top = max(logs)
    return top + math.log(sum(math.exp(x - top) for x in logs) / len(logs))


def _largest(logs: Sequence[float]) -> float:
    return math.exp(min(700.0, max(logs, default=0.0)))


def _end(log_ratios: Sequence[float], alpha: float, side: int) -> float:
    """Where the evidence that the median lies further in falls short of 1 / `alpha`: it falls as one moves in."""
    outside = min(log_ratios) - FAR if side > 0 else max(log_ratios) + FAR
    inside = max(log_ratios) if side > 0 else min(log_ratios)
    if _evidence(log_ratios, outside, side)[-1] < -math.log(alpha):
        return -math.inf if side > 0 else math.inf
    for _ in range(STEPS):
        middle = (outside + inside) / 2
        if _evidence(log_ratios, middle, side)[-1] >= -math.log(alpha):
            outside = middle
        else:
            inside = middle
    return outside
