"""The baseline's figure that a rule is held against; or why there is none."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.baseline import Baseline
from edgekit.figures import metric_value
from edgekit.report.schema import BaselineEntry, Conditions, Deployable, Report
from edgekit.rules import FRACTION, METRICS, Rule

__all__ = ["BESIDE", "Reference", "reference_of"]

BESIDE = "measure the two side by side: edgekit bench NEW --baseline OLD_FOLDER"
WORKLOAD = ("batch", "length", "items", "threads")
COUNTED = ("batch", "length", "items")


@dataclass(frozen=True)
class Reference:
    """`value` in the metric's base unit, of `entry`; where None, `why_not` says why."""

    value: float | None = None
    why_not: str = ""
    entry: BaselineEntry | None = None


def reference_of(rule: Rule, entry: Deployable, report: Report, baseline: Baseline | None) -> Reference:
    """The baseline of the report itself, measured in the same rounds; or the file of this id of an earlier one."""
    if baseline is None:
        if report.baseline is None:
            return Reference(why_not="the report has no baseline")
        if rule.metric == "throughput" and (reason := _other_batch(entry, report.baseline)):
            return Reference(why_not=f"throughput cannot be compared with the baseline: {reason}")
        value = metric_value(rule.metric, report.baseline)
        return Reference(value, f"the report's baseline has no {rule.metric}", report.baseline)
    earlier = baseline.file(entry.id)
    if earlier is None:
        return Reference(why_not="the baseline has no file of this name")
    if reason := _unlike(rule, entry, earlier, report, baseline):
        return Reference(why_not=f"{rule.metric} cannot be compared with the baseline: {reason}")
    return Reference(metric_value(rule.metric, earlier), f"the baseline has no {rule.metric}", earlier)


def _unlike(rule: Rule, entry: Deployable, earlier: BaselineEntry, report: Report, baseline: Baseline) -> str:
    """Why a metric of two reports means two things; empty where it does not."""
    metric = METRICS[rule.metric]
    if rule.metric == "size":
        return ""
    first, second = report.conditions, baseline.conditions
    if first is None or second is None:
        return "its conditions are not known"
    if metric.units == FRACTION:
        return _other_data(entry, earlier, first, second)
    if rule.metric == "instructions":
        return _other_target(first, second) or _other_workload(first, second, COUNTED)
    if report.machine.cpu != baseline.machine.cpu:
        return f"it was measured on another machine ({baseline.machine.cpu}); {BESIDE}"
    reason = _other_target(first, second) or _other_workload(first, second, WORKLOAD)
    if not reason and rule.metric == "throughput":
        reason = _other_batch(entry, earlier)
    return f"{reason}; {BESIDE}" if reason else ""


def _other_target(first: Conditions, second: Conditions) -> str:
    ours, theirs = (f"{it.target}, {it.transport}, {it.fidelity}" for it in (first, second))
    return "" if ours == theirs else f"it is of another target ({theirs}; here {ours})"


def _other_workload(first: Conditions, second: Conditions, names: tuple[str, ...]) -> str:
    for name in ("data", *names):
        ours, theirs = getattr(first, name), getattr(second, name)
        if ours != theirs:
            return f"it is of another workload (its {name} is {theirs}, here {ours})"
    return ""


def _other_data(entry: Deployable, earlier: BaselineEntry, first: Conditions, second: Conditions) -> str:
    ours, theirs = entry.correctness, earlier.correctness
    if ours is not None and theirs is not None:
        return "" if (ours.data, ours.n) == (theirs.data, theirs.n) else "it is of other test data"
    same = (first.data, first.n) == (second.data, second.n)
    return "" if same else f"it is of other test data ({second.n} examples of {second.data})"


def _other_batch(entry: BaselineEntry, reference: BaselineEntry) -> str:
    """Of the largest batch, which is what a rule reads; a file that was not measured is told elsewhere."""
    if not entry.throughput or not reference.throughput:
        return ""
    ours, theirs = entry.throughput[-1].batch, reference.throughput[-1].batch
    if ours == theirs:
        return ""
    return (
        f"its throughput is of batches of {theirs}, here {ours} (--throughput-batches {min(ours, theirs)} suits both)"
    )
