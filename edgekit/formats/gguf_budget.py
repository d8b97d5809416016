"""Which type each tensor gets, so that the file keeps within a size and costs the least."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import UsageError

__all__ = ["Choice", "choose_types"]

STEPS = (
    20_000  # the budget is counted in steps of a 20 000th: what is lost to rounding up is below 0.5% for 100 tensors
)


@dataclass(frozen=True)
class Choice:
    """A type that a tensor may have: the bytes that it takes in the file, and what its error costs (any one unit)."""

    type_name: str
    bytes: int
    cost: float


def choose_types(options: Mapping[str, list[Choice]], budget: int) -> dict[str, str]:
    """Type by tensor name with the least sum of costs among those whose bytes add up to `budget` at most.

    Exact up to the step in which bytes are counted: dynamic programming over the multiple-choice knapsack.
    Raises UsageError where not even the smallest types fit.
    """
    least = sum(min(choice.bytes for choice in choices) for choices in options.values())
    if least > budget:
        raise UsageError(f"a budget of {budget:,} bytes for the tensors: the smallest types take {least:,}")
    step = -(-(budget - least) // STEPS) or 1
    room = (budget - least) // step
    best = np.zeros(room + 1)  # least cost of the tensors so far, by the steps that they may take beyond their least
    picks: list[NDArray[np.intp]] = []
    for choices in options.values():
        smallest = min(choice.bytes for choice in choices)
        costs = np.full((len(choices), room + 1), np.inf)
        for row, choice in enumerate(choices):
            extra = -(-(choice.bytes - smallest) // step)
            if extra <= room:
                costs[row, extra:] = best[: room + 1 - extra] + choice.cost
        picks.append(costs.argmin(0))
        best = costs.min(0)
    found = {}
    for (name, choices), pick in zip(reversed(list(options.items())), reversed(picks), strict=True):
        choice = choices[pick[room]]
        found[name] = choice.type_name
        room -= -(-(choice.bytes - min(c.bytes for c in choices)) // step)
    return {name: found[name] for name in options}
