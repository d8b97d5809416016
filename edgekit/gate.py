"""The gate: rules against a report. Pure: nothing is measured, read or written here."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgekit.report.schema import BaselineEntry, Deployable, Gate, Report, RuleEntry
from edgekit.rules import BYTES, FRACTION, METRICS, RATE, TIME, Rule

__all__ = ["judge", "metric_value", "show"]

TIMED = ("latency.p50", "latency.p90", "latency.p99", "throughput", "memory")
Found = tuple[float | None, float | None, bool, str]  # value, limit, passed, sentence


def judge(report: Report, rules: Sequence[Rule], baseline: Report | None = None) -> Gate:
    """Judge every rule, and the baseline itself.

    `baseline`: an earlier report, whose deployable of the same id is what `baseline` in a rule means; without it, it is
    the baseline of this report, which was measured in the same rounds. A missing metric, a NaN, a rule about an unknown
    deployable and a baseline at chance level all fail. No rules is no gate: fails too.
    """
    entries = tuple(_judge_rule(rule, report, baseline) for rule in rules)
    reasons = _reasons(report, baseline)
    if not rules:
        reasons = (*reasons, "there are no rules: nothing was judged")
    passed = all(entry.passed for entry in entries) and not reasons
    return Gate(
        verdict="pass" if passed else "fail",
        rules=entries,
        reasons=reasons,
        warnings=_warnings(report, rules),
    )


def metric_value(metric: str, entry: BaselineEntry, report: Report) -> float | None:
    """A metric of a file in its base unit; None where the report does not have it."""
    family, _, percentile = metric.partition(".")
    if family == "latency":
        return getattr(entry.latency_ms, percentile) if entry.latency_ms is not None else None
    if metric == "size":
        return float(entry.size_bytes)
    if metric == "memory":
        return float(entry.peak_rss_bytes) if entry.peak_rss_bytes else None
    if metric == "throughput":
        return entry.throughput[-1].per_second if entry.throughput else None  # of the largest batch
    if metric == "size_ratio":
        return report.baseline.size_bytes / entry.size_bytes if report.baseline and entry.size_bytes else None
    if metric == "accuracy_drop":
        drop = entry.accuracy_drop if isinstance(entry, Deployable) else None
        return drop.value if drop is not None else None
    if metric == "speedup":
        speedup = entry.speedup if isinstance(entry, Deployable) else None
        return speedup.value if speedup is not None else None
    return entry.metrics.get(metric)


def show(metric: str, value: float | None) -> str:
    """A value with its unit, as a rule would write it."""
    if value is None or not math.isfinite(value):
        return "nothing" if value is None else "not a number"
    units = METRICS[metric].units
    if metric == "accuracy_drop":
        return f"{value * 100:.2f}pt"
    if units == FRACTION:
        return f"{value * 100:.2f}%"
    if units == TIME:
        return f"{value:.3g}ms"
    if units == BYTES:
        name = next((n for n in ("GB", "MB", "kB") if abs(value) >= BYTES[n]), "B")
        return f"{value / BYTES[name]:.4g}{name}"
    if units == RATE:
        return f"{value:.4g}/s"
    return f"{value:.3g}x" if "x" in units else f"{value:.3g}"


def _judge_rule(rule: Rule, report: Report, baseline: Report | None) -> RuleEntry:
    """The rule on each deployable it is about; the one that decides (the worst, or for "any" the best) is told."""
    known = {entry.id: entry for entry in report.deployables}
    unknown = [name for name in rule.on if name not in known]
    if unknown or not known:
        sentence = f"the report has no deployable {', '.join(unknown)}" if unknown else "the report has no deployables"
        return RuleEntry(rule=str(rule), value=None, limit=None, passed=False, sentence=sentence)
    names = rule.on or tuple(known)
    found = {name: _judge_one(rule, known[name], report, baseline) for name in names}
    verdicts = [passed for _, _, passed, _ in found.values()]
    passed = any(verdicts) if rule.quantifier == "any" else all(verdicts)
    decider = max(found, key=lambda name: _margin(rule, found[name]) * (1 if rule.quantifier == "any" else -1))
    value, limit, _, sentence = found[decider]
    return RuleEntry(
        rule=str(rule), value=_finite(value), limit=limit, passed=passed, deployable=decider, sentence=sentence
    )


def _judge_one(rule: Rule, entry: Deployable, report: Report, baseline: Report | None) -> Found:
    value = metric_value(rule.metric, entry, report)
    if value is None:
        return None, None, False, f"{entry.id}: the report has no {rule.metric}"
    if not math.isfinite(value):
        return value, None, False, f"{entry.id}: {rule.metric} is not a number"
    reference, why_not = _reference(rule, entry, report, baseline)
    limit = rule.bound(reference)
    if limit is None:
        return value, None, False, f"{entry.id}: {why_not}"
    passed = rule.holds(value, limit)
    against = f" (baseline {show(rule.metric, reference)})" if rule.relative else ""
    verb = "holds" if passed else "fails"
    sentence = (
        f"{entry.id}: {rule.metric} {show(rule.metric, value)} {rule.op} {show(rule.metric, limit)}{against}: {verb}"
    )
    return value, limit, passed, sentence


def _reference(rule: Rule, entry: Deployable, report: Report, baseline: Report | None) -> tuple[float | None, str]:
    """The baseline's value of the rule's metric, or why there is none."""
    if not rule.relative:
        return None, ""
    if baseline is None:
        if report.baseline is None:
            return None, "the report has no baseline"
        found = metric_value(rule.metric, report.baseline, report)
        return found, f"the report's baseline has no {rule.metric}"
    other = next((e for e in baseline.deployables if e.id == entry.id), None)
    if other is None:
        return None, "the baseline report has no deployable of this id"
    if rule.metric in TIMED and (unlike := _unlike(report, baseline)):
        return None, f"{rule.metric} cannot be compared with the baseline report: {unlike}"
    return metric_value(rule.metric, other, baseline), f"the baseline report has no {rule.metric}"


def _unlike(report: Report, baseline: Report) -> str:
    """Why times of two reports cannot be compared; empty where they can."""
    if report.machine.cpu != baseline.machine.cpu:
        return f"it was measured on another processor ({baseline.machine.cpu})"
    first, second = report.conditions, baseline.conditions
    if first is None or second is None:
        return "its conditions are not known"
    for name in ("batch", "threads", "length", "data", "transport"):
        ours, theirs = getattr(first, name), getattr(second, name)
        if ours != theirs:
            return f"its {name} is {theirs}, here {ours}"
    return ""


def _margin(rule: Rule, found: Found) -> float:
    """How far inside its limit a value is, as a share of the limit; what has no value is infinitely far outside."""
    value, limit, passed, _ = found
    if value is None or limit is None or not math.isfinite(value):
        return -math.inf
    away = (value - limit) / (abs(limit) or 1.0)
    if rule.op == "==":
        return 0.0 if passed else -abs(away)
    return away if rule.op in (">=", ">") else -away


def _reasons(report: Report, baseline: Report | None) -> tuple[str, ...]:
    """What fails the gate whatever the rules say."""
    found = []
    for name, checked in (("baseline", report), ("baseline report", baseline)):
        check = checked.baseline_check if checked is not None else None
        if check is not None and (check.at_chance or not math.isfinite(check.p_value)):
            found.append(
                f"the {name} is at chance level: accuracy {check.accuracy:.1%}, always answering the commonest label "
                f"{check.majority_share:.1%} (p = {check.p_value:.2g}); whatever keeps up with it proves nothing"
            )
    return tuple(found)


def _warnings(report: Report, rules: Sequence[Rule]) -> tuple[str, ...]:
    """What a reader should know: a control that says this machine was too noisy for these limits."""
    if report.control is None or not any(r.metric == "speedup" or r.metric in TIMED for r in rules):
        return ()
    control, found = report.control, []
    if not control.low <= 1.0 <= control.high:
        found.append(
            f"the baseline against itself came out {control.value:.3f} ({control.low:.3f} to {control.high:.3f}): "
            "the machine was not steady, take times with care"
        )
    margins = [abs(r.limit.number - 1) for r in rules if r.limit.kind == "ratio" and r.metric in TIMED]
    margins += [abs(r.limit.number) / 100 for r in rules if r.limit.unit == "%" and r.metric in TIMED]
    wide = max(control.high - 1, 1 - control.low)
    if margins and wide > min(margins):
        found.append(
            f"the noise of this machine (±{wide:.1%}) is wider than the margin of a rule (±{min(margins):.1%})"
        )
    return tuple(found)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
