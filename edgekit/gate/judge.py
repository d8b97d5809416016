"""Every rule on every file it is about, and the baseline itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgekit.baseline import Baseline
from edgekit.figures import metric_value, show
from edgekit.gate.against import BESIDE, Reference, reference_of
from edgekit.gate.found import Found, finite, of_value
from edgekit.gate.paired import accuracy_note, drop_of, paired_verdict
from edgekit.gate.turns import by_turns, judge_turns, too_noisy
from edgekit.report.schema import BaselineEntry, Deployable, Gate, Report, RuleEntry
from edgekit.rules import METRICS, Rule, main_metric
from edgekit.sample_size import accuracy_margin
from edgekit.sequential import Verdict
from edgekit.statistics import Chance, Interval

__all__ = ["judge"]

TOLD: dict[Verdict, str] = {"pass": "holds", "fail": "fails", "inconclusive": "not decided"}
UNSTEADY = 1.2  # a control whose interval's ends are so far apart says that the machine was busy
SEVERITY: tuple[Verdict, ...] = ("fail", "inconclusive", "pass")


def judge(report: Report, rules: Sequence[Rule], baseline: Baseline | None = None) -> Gate:
    """Judge every rule, and the baseline itself.

    `baseline`: kept from an earlier report, its file of the same id is what `baseline` in a rule means; without it, it
    is the baseline of this report, which was measured in the same rounds. A missing metric, a NaN, an emulated time, a
    rule about an unknown deployable and a baseline at chance level all fail. No rules is no gate: fails too.
    """
    entries = tuple(_judge_rule(rule, report, baseline) for rule in rules)
    reasons = _reasons(report.baseline_check, baseline.check if baseline else None)
    if not rules:
        reasons = (*reasons, "there are no rules: nothing was judged")
    verdict: Verdict = "pass"
    if reasons or any(entry.verdict == "fail" for entry in entries):
        verdict = "fail"
    elif not all(entry.passed for entry in entries):
        verdict = "inconclusive"
    return Gate(verdict=verdict, rules=entries, reasons=reasons, warnings=_warnings(report, rules))


def _judge_rule(rule: Rule, report: Report, baseline: Baseline | None) -> RuleEntry:
    """The rule on each deployable it is about; the one that decides (the worst, or for "any" the best) is told."""
    known = {entry.id: entry for entry in report.deployables}
    unknown = [name for name in rule.on if name not in known]
    if unknown or not known:
        sentence = f"the report has no deployable {', '.join(unknown)}" if unknown else "the report has no deployables"
        return _entry(rule, "", Found("fail", sentence))
    found = {name: _judge_one(rule, known[name], report, baseline) for name in rule.on or known}

    def rank(name: str) -> tuple[int, float]:
        return SEVERITY.index(found[name].verdict), found[name].inside(rule)

    decider = max(found, key=rank) if rule.quantifier == "any" else min(found, key=rank)
    return _entry(rule, decider, found[decider])


def _entry(rule: Rule, name: str, found: Found) -> RuleEntry:
    interval = found.interval
    shown = interval is not None and math.isfinite(interval.low) and math.isfinite(interval.high)
    return RuleEntry(
        rule=str(rule),
        value=finite(found.value),
        limit=finite(found.limit),
        verdict=found.verdict,
        passed=found.verdict == "pass" or (found.verdict == "inconclusive" and rule.or_inconclusive),
        deployable=name,
        sentence=found.sentence,
        relative=found.relative,
        interval=(interval.low, interval.high) if interval is not None and shown else None,
    )


def _judge_one(rule: Rule, entry: Deployable, report: Report, baseline: Baseline | None) -> Found:
    if METRICS[rule.metric].timed and report.conditions is not None and report.conditions.fidelity == "emulated":
        told = f"{rule.metric} means nothing under emulation; judge instructions, or measure on the device itself"
        return Found("fail", f"{entry.id}: {told}")
    value = metric_value(rule.metric, entry, report.baseline)
    if value is None:
        return Found("fail", f"{entry.id}: the report has no {rule.metric}")
    if not math.isfinite(value):
        return Found("fail", f"{entry.id}: {rule.metric} is not a number", value)
    reference = reference_of(rule, entry, report, baseline) if rule.relative else Reference()
    limit = rule.bound(reference.value)
    if limit is None:
        return Found("fail", f"{entry.id}: {reference.why_not}", value)
    if rule.metric == "speedup" and by_turns(rule) and entry.rounds and limit > 0:
        return judge_turns(rule, entry.id, entry.rounds, report.control, limit)
    if rule.relative and METRICS[rule.metric].timed and limit > 0 and reference.value and rule.op != "==":
        return _judge_time(rule, entry, report, baseline, value, limit, reference)
    return _judge_value(rule, entry, report, value, limit, reference)


def _judge_value(
    rule: Rule, entry: Deployable, report: Report, value: float, limit: float, reference: Reference
) -> Found:
    """The value decides, of an accuracy with the paired sample; what is known of its uncertainty is told."""
    verdict = of_value(rule, value, limit)
    sentence, notes = _sentence(rule, entry.id, value, limit, reference.value), []
    interval = _interval(rule.metric, entry)
    if interval is not None and interval.low < limit < interval.high:
        low, high = show(rule.metric, interval.low), show(rule.metric, interval.high)
        notes.append(f"its interval over rounds, {low} to {high}, holds the limit: it may come out otherwise")
    margin = accuracy_margin(rule)
    if margin is not None and entry.accuracy_drop is not None:
        earlier = reference.entry if reference.entry is not report.baseline else None
        rows = report.conditions.n if report.conditions is not None else None
        drop = drop_of(entry, earlier)
        verdict = paired_verdict(verdict, drop, margin)
        notes.append(accuracy_note(verdict, drop, margin, rows, main_metric(entry.metrics)))
    told = "; ".join([f"{sentence}: {TOLD[verdict]}", *notes])
    return Found(verdict, told, value, limit, interval=interval)


def _judge_time(
    rule: Rule,
    entry: Deployable,
    report: Report,
    baseline: Baseline | None,
    value: float,
    limit: float,
    reference: Reference,
) -> Found:
    """A latency or a throughput against the baseline's."""
    assert reference.value is not None
    margin = limit / reference.value
    if baseline is None and by_turns(rule):
        return judge_turns(rule, entry.id, entry.rounds, report.control, margin)
    sentence = _sentence(rule, entry.id, value, limit, reference.value)
    if reason := too_noisy(rule, report.control, margin, value / reference.value):
        return Found("inconclusive", f"{sentence}: not decided, {reason}", value, limit)
    first, second = (_interval(rule.metric, file) for file in (entry, reference.entry) if file is not None)
    if first is None or second is None:
        verdict = of_value(rule, value, limit)
        return Found(verdict, f"{sentence}: {'holds' if verdict == 'pass' else 'fails'}", value, limit)
    # Two runs at two times: each has noise of its own, so each end is held against the other's other end.
    ends = (of_value(rule, first.low, second.high * margin), of_value(rule, first.high, second.low * margin))
    if ends[0] == ends[1]:
        return Found(ends[0], f"{sentence}: {'holds' if ends[0] == 'pass' else 'fails'}", value, limit, interval=first)
    told = f"not decided, the intervals of the two runs overlap; {BESIDE}"
    return Found("inconclusive", f"{sentence}: {told}", value, limit, interval=first)


def _sentence(rule: Rule, name: str, value: float, limit: float, reference: float | None) -> str:
    against = f" (baseline {show(rule.metric, reference)})" if rule.relative else ""
    return f"{name}: {rule.metric} {show(rule.metric, value)} {rule.op} {show(rule.metric, limit)}{against}"


def _interval(metric: str, entry: BaselineEntry) -> Interval | None:
    """The 95% interval of a latency, or of a throughput, over its rounds."""
    family, _, percentile = metric.partition(".")
    latency, flow = entry.latency_ms, entry.throughput[-1] if entry.throughput else None
    ends: tuple[float, float] | None = None
    if family == "latency" and latency is not None:
        value, ends = getattr(latency, percentile), getattr(latency, f"{percentile}_interval")
    elif family == "throughput" and flow is not None:
        value, ends = flow.per_second, flow.interval
    return Interval(value=value, low=ends[0], high=ends[1]) if ends is not None else None


def _reasons(ours: Chance | None, theirs: Chance | None) -> tuple[str, ...]:
    """What fails the gate whatever the rules say."""
    return tuple(
        f"the {name} is at chance level: it scores {check.accuracy:.1%}, always answering the commonest label "
        f"{check.majority_share:.1%} (p = {check.p_value:.2g}); whatever keeps up with it proves nothing"
        for name, check in (("baseline", ours), ("baseline file", theirs))
        if check is not None and (check.at_chance or not math.isfinite(check.p_value))
    )


def _warnings(report: Report, rules: Sequence[Rule]) -> tuple[str, ...]:
    """What a reader should know: a control that says this machine was not steady."""
    control = report.control
    if control is None or not any(METRICS[r.metric].timed for r in rules):
        return ()
    if control.low <= 1.0 <= control.high and control.high < UNSTEADY * control.low:
        return ()
    return (
        f"the baseline against itself came out {control.value:.3f} ({control.low:.3f} to {control.high:.3f}): "
        "the machine was not steady, take times with care",
    )
