"""Intervals and tests for paired measurements, closed-form or exact; `resampling.py` has what cannot be so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

from edgekit.artifact import Frozen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "Chance",
    "Drop",
    "Interval",
    "binomial_lower_tail",
    "chance_check",
    "mcnemar",
    "mean_interval",
    "median_interval",
    "paired_difference",
]

LEVEL = 0.95
ALPHA = 0.05


class Interval(Frozen):
    """An estimate and the ends of its 95% interval."""

    value: float
    low: float
    high: float


class Drop(Interval):
    """The task's main metric of the baseline minus that of the candidate (fractions), and the two-sided p-value of "no
    difference": McNemar's, exact, or where the metric is no share of right answers a bootstrap's."""

    p_value: float | None = None


class Chance(Frozen):
    """Whether a model beats always giving the commonest answer, by a one-sided test. `accuracy`: its score, by the main
    metric of the task; `majority_share`: the score of that answer."""

    accuracy: float
    majority_share: float
    p_value: float
    at_chance: bool


def binomial_lower_tail(k: int, n: int) -> float:
    """P(X <= k) for X ~ Binomial(n, 1/2), exact (whole numbers, one division)."""
    if k < 0:
        return 0.0
    if k >= n:
        return 1.0
    term, total = 1, 1
    for i in range(1, k + 1):
        term = term * (n - i + 1) // i
        total += term
    return total / (1 << n)


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact McNemar p-value from the counts of examples that only one of two classifiers gets right.

    McNemar 1947; the exact (binomial) form. 1.0 where there is no such example.
    """
    total = only_first + only_second
    return min(1.0, 2.0 * binomial_lower_tail(min(only_first, only_second), total)) if total else 1.0


def paired_difference(only_first: int, only_second: int, n: int, level: float = LEVEL) -> Interval:
    """Difference of two proportions measured on the same `n` examples: (only_first - only_second) / n.

    The interval is Wald's with one example added to each discordant cell (Bonett & Price 2012, the one that Fagerland,
    Lydersen & Laake 2014 recommend). A bootstrap would answer [0, 0] where the two never disagree, as if `n` were
    infinite; this one does not. Raises ValueError for n < 1.
    """
    if n < 1:
        raise ValueError("no examples")
    value = (only_first - only_second) / n
    first, second = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    center = first - second
    half = _z(level) * math.sqrt(max(0.0, first + second - center * center) / (n + 2))
    return Interval(
        value=value,
        low=min(value, max(-1.0, center - half)),
        high=max(value, min(1.0, center + half)),
    )


def median_interval(values: Sequence[float] | NDArray[np.float64], level: float = LEVEL) -> Interval:
    """Median, and its interval from interpolated order statistics (Hettmansperger & Sheather 1986).

    Distribution-free: it needs no symmetry and no variance, and one wild value does not move it. With fewer than six
    values no such interval reaches 95%: then it is the whole range, which covers the median with 1 - 2^(1-n).
    Raises ValueError for no values or a NaN.
    """
    import numpy as np

    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    if n == 0 or bool(np.isnan(ordered).any()):
        raise ValueError("a median needs values, and no NaN among them")
    value = float(np.median(ordered))
    depth = 1
    while 2 * (depth + 1) <= n and _coverage(n, depth + 1) >= level:
        depth += 1
    outer, inner = _coverage(n, depth), _coverage(n, depth + 1) if 2 * (depth + 1) <= n else 0.0
    if outer <= level or n < 3:
        return Interval(value=value, low=float(ordered[0]), high=float(ordered[-1]))
    share = (outer - level) / (outer - inner)
    weight = (n - depth) * share / (depth + (n - 2 * depth) * share)
    low = (1 - weight) * ordered[depth - 1] + weight * ordered[depth]
    high = (1 - weight) * ordered[n - depth] + weight * ordered[n - depth - 1]
    return Interval(value=value, low=float(low), high=float(high))


def mean_interval(values: Sequence[float] | NDArray[np.float64], level: float = LEVEL) -> Interval:
    """Mean of independent values, and its interval by Student's t. Of one value, the interval is all numbers.

    Raises ValueError for no values or a NaN.
    """
    import numpy as np

    given = np.asarray(values, dtype=np.float64)
    if len(given) == 0 or bool(np.isnan(given).any()):
        raise ValueError("a mean needs values, and no NaN among them")
    value = float(given.mean())
    if len(given) == 1:
        return Interval(value=value, low=-math.inf, high=math.inf)
    half = _t(level, len(given) - 1) * float(given.std(ddof=1)) / math.sqrt(len(given))
    return Interval(value=value, low=value - half, high=value + half)


def chance_check(correct: NDArray[np.bool_], labels: NDArray[np.int64]) -> Chance:
    """Compare a classifier, example by example, with always answering the commonest label of these `labels` (n,).

    One-sided exact sign test over the examples on which the two differ. Raises ValueError for no examples.
    """
    import numpy as np

    n = len(labels)
    if n == 0:
        raise ValueError("no examples")
    majority = labels == np.bincount(labels).argmax()
    only_model, only_majority = int(np.sum(correct & ~majority)), int(np.sum(majority & ~correct))
    p_value = binomial_lower_tail(only_majority, only_model + only_majority)
    return Chance(
        accuracy=float(np.mean(correct)),
        majority_share=float(np.mean(majority)),
        p_value=p_value,
        at_chance=p_value > ALPHA,
    )


def _coverage(n: int, depth: int) -> float:
    """How often [x_depth, x_(n+1-depth)] of n ordered values holds the median."""
    return 1.0 - 2.0 * binomial_lower_tail(depth - 1, n)


def _t(level: float, freedom: int) -> float:
    """Two-sided quantile of Student's t: exact for one and two degrees of freedom, else by its expansion around the
    normal quantile (Abramowitz & Stegun 26.7.5; at most 0.2% too small)."""
    tail = 1.0 - level
    if freedom == 1:
        return 1.0 / math.tan(tail * math.pi / 2)
    if freedom == 2:
        return math.sqrt(2.0 / (tail * (2.0 - tail)) - 2.0)
    z = _z(level)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    fourth = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + first / freedom + second / freedom**2 + third / freedom**3 + fourth / freedom**4


def _z(level: float) -> float:
    return NormalDist().inv_cdf(0.5 + level / 2)
