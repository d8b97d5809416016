"""Bootstrap intervals for metrics that are no means of examples, as F1 over entities is; seeded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgekit.statistics import ALPHA, LEVEL, Chance, Drop

__all__ = ["Statistic", "bootstrap_chance", "bootstrap_drop"]

SAMPLES = 2000
SEED = 0
Statistic = Callable[[NDArray[np.float64], NDArray[np.int64]], NDArray[np.float64]]  # evidence, counts -> (samples,)


def bootstrap_drop(statistic: Statistic, parent: NDArray[np.float64], child: NDArray[np.float64]) -> Drop:
    """The metric of `parent` minus that of `child`, evidence (rows, k) of the same rows, which are drawn together.

    95% percentile interval over 2000 samples; p is twice the smaller share of samples on either side of 0 (Efron and
    Tibshirani 1993, chapters 13 and 15; for F1: Berg-Kirkpatrick et al. 2012). Raises ValueError where the rows are not
    the same number, or none.
    """
    if len(parent) != len(child):
        raise ValueError(f"{len(parent)} and {len(child)} rows cannot be paired")
    counts = _draws(len(parent))
    drops = statistic(parent, counts) - statistic(child, counts)
    whole = np.ones((1, len(parent)), dtype=np.int64)
    value = float((statistic(parent, whole) - statistic(child, whole))[0])
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(drops, [tail, 100 - tail])
    p_value = min(1.0, 2 * float(min(np.mean(drops <= 0), np.mean(drops >= 0))))
    return Drop(value=value, low=min(value, float(low)), high=max(value, float(high)), p_value=p_value)


def bootstrap_chance(statistic: Statistic, evidence: NDArray[np.float64]) -> Chance:
    """Whether the metric of `evidence` (rows, k) is above 0, which is what an answer that is always the same scores.

    Raises ValueError for no rows.
    """
    whole = np.ones((1, len(evidence)), dtype=np.int64)
    p_value = float(np.mean(statistic(evidence, _draws(len(evidence))) <= 0))
    score = float(statistic(evidence, whole)[0])
    return Chance(accuracy=score, majority_share=0.0, p_value=p_value, at_chance=p_value > ALPHA)


def _draws(rows: int) -> NDArray[np.int64]:
    """How often each of SAMPLES samples, as large as the data, holds each row: (samples, rows)."""
    if rows == 0:
        raise ValueError("no examples")
    return np.random.default_rng(SEED).multinomial(rows, np.full(rows, 1 / rows), size=SAMPLES)
