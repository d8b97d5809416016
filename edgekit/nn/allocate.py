"""Which size each block gets, so that all together lose least within a budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import StageError

__all__ = ["allocate"]

BINS = 4096  # that the budget is divided into


def allocate(losses: Sequence[Sequence[float]], costs: Sequence[Sequence[float]], budget: float) -> list[int]:
    """For each block the number of its choice; the sum of losses is the least with the sum of costs within `budget`.

    `losses[block][choice]`, `costs[block][choice]` in any unit. Dynamic programming over the budget in 4096 parts
    (Shen et al. 2022, "Structural Pruning via Latency-Saliency Knapsack"); costs are rounded up, so that the budget
    holds. Raises StageError where even the cheapest choices are over it.
    """
    floor = sum(min(block) for block in costs)
    if floor > budget:
        share = floor / sum(max(block) for block in costs)
        raise StageError(f"the budget cannot be met: the smallest sizes still take {share:.0%} of the largest")
    unit = max((budget - floor) / BINS, 1e-300)
    best: NDArray[np.float64] = np.zeros(BINS + 1)  # the least loss so far, by bins spent at most
    taken: list[NDArray[np.int64]] = []
    for loss, cost in zip(losses, costs, strict=True):
        found = np.full((len(loss), BINS + 1), np.inf)
        for choice, (lost, paid) in enumerate(zip(loss, cost, strict=True)):
            bins = min(int(np.ceil((paid - min(cost)) / unit - 1e-9)), BINS + 1)
            found[choice, bins:] = best[: BINS + 1 - bins] + lost
        taken.append(found.argmin(0))
        best = found.min(0)
    return _traced(taken, costs, unit)


def _traced(taken: Sequence[NDArray[np.int64]], costs: Sequence[Sequence[float]], unit: float) -> list[int]:
    """The choices behind the best total, from the last block back."""
    left, chosen = BINS, []
    for choices, cost in zip(reversed(taken), reversed(costs), strict=True):
        choice = int(choices[left])
        chosen.append(choice)
        left -= int(np.ceil((cost[choice] - min(cost)) / unit - 1e-9))
    return chosen[::-1]
