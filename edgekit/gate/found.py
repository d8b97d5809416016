"""What a rule finds of one file."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgekit.rules import Rule
from edgekit.sequential import Verdict
from edgekit.statistics import Interval

__all__ = ["Found", "finite", "of_value"]


@dataclass(frozen=True)
class Found:
    """`value`, `limit` and `interval` in the metric's base unit, or where `relative` as ratios to the baseline's."""

    verdict: Verdict
    sentence: str
    value: float | None = None
    limit: float | None = None
    relative: bool = False
    interval: Interval | None = None

    def inside(self, rule: Rule) -> float:
        """How far inside the limit the value is, as a share of the limit; without a value, infinitely far outside."""
        value, limit = finite(self.value), finite(self.limit)
        if value is None or limit is None:
            return -math.inf
        away = (value - limit) / (abs(limit) or 1.0)
        if rule.op == "==":
            return 0.0 if self.verdict == "pass" else -abs(away)
        return away if rule.op in (">=", ">") else -away


def of_value(rule: Rule, value: float, limit: float) -> Verdict:
    """The verdict where the value alone decides."""
    return "pass" if rule.holds(value, limit) else "fail"


def finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
