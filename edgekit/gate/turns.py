"""Latency against the baseline that was measured beside it: round by round, by the sequential test."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgekit.gate.found import Found
from edgekit.report.schema import Control, RoundRatio
from edgekit.rounds import Bench, Measurement
from edgekit.rules import Rule
from edgekit.sequential import Decision, Verdict, decide, sequence
from edgekit.statistics import median_interval

__all__ = ["judge_turns", "noise", "settled", "too_noisy"]

FLIPPED: dict[Verdict, Verdict] = {"pass": "fail", "fail": "pass", "inconclusive": "inconclusive"}


def judge_turns(rule: Rule, name: str, rounds: Sequence[RoundRatio], control: Control | None, margin: float) -> Found:
    """A rule that limits the file's latency to `margin` times the baseline's (above 0), over `rounds`."""
    percentile = rule.metric.partition(".")[2]
    ratios = [float(getattr(ratio, percentile)) for ratio in rounds]
    if not ratios:
        return Found("fail", f"{name}: the report has no rounds of it beside the baseline: {rule.metric} is not known")
    if not all(math.isfinite(ratio) and ratio > 0 for ratio in ratios):
        return Found("fail", f"{name}: {rule.metric} of a round is not a number")
    logs = [math.log(ratio) for ratio in ratios]
    interval = sequence(logs)
    seen = f"{rule.metric} is {interval.value:.3f}x the baseline's [{interval.low:.3f}, {interval.high:.3f}]"
    told = f"{name}: {seen} over {len(logs)} rounds, limit {rule.op} {margin:.4g}x"
    if reason := too_noisy(rule, control, margin):
        verdict: Verdict = "inconclusive"
        told = f"{told}: not decided, {reason}"
    else:
        verdict = _verdict(rule, decide(logs, margin))
        told = f"{told}: {_told(rule, verdict, rounds, margin)}"
    return Found(verdict, told, interval.value, margin, relative=True, interval=interval)


def settled(rules: Sequence[Rule], bench: Bench) -> bool:
    """Whether more rounds can change no verdict: every rule that holds a latency against the baseline is decided."""
    base = next((m for m in bench.measurements.values() if m.speedup is None), None)
    if base is None:
        return True
    for rule in rules:
        if not rule.relative or not rule.metric.startswith("latency."):
            continue
        files = [m for m in bench.measurements.values() if m.rounds and (not rule.on or m.id in rule.on)]
        verdicts = [_of_measurement(rule, found, base, bench.control) for found in files]
        if rule.quantifier == "any" and "pass" in verdicts:
            continue
        if rule.quantifier == "all" and "fail" in verdicts:
            continue
        if "inconclusive" in verdicts:
            return False
    return True


def noise(control: Control | None, percentile: str) -> float | None:
    """How far from 1 the A/A control's 95% interval reaches, at this percentile; None where there was no control."""
    if control is None:
        return None
    ratios = [float(getattr(ratio, percentile)) for ratio in control.rounds]
    found = median_interval(ratios) if ratios and not any(map(math.isnan, ratios)) else control
    return max(found.high - 1, 1 - found.low)


def too_noisy(rule: Rule, control: Control | None, margin: float) -> str:
    """Why the gate refuses to tell times apart that closely; empty where it does not."""
    wide = noise(control, rule.metric.partition(".")[2] or "p50")
    if wide is None or wide <= abs(margin - 1):
        return ""
    return (
        f"the baseline against itself came out up to {wide:.1%} off, more than the margin of {abs(margin - 1):.1%}: "
        "measure more rounds, or on a quieter machine"
    )


def _of_measurement(rule: Rule, found: Measurement, base: Measurement, control: Control | None) -> Verdict:
    reference = getattr(base.latency_ms, rule.metric.partition(".")[2], None)
    limit = rule.bound(reference)
    if not reference or limit is None or limit <= 0:
        return "fail"
    return judge_turns(rule, found.id, found.rounds, control, limit / reference).verdict


def _verdict(rule: Rule, decision: Decision) -> Verdict:
    return decision.verdict if rule.op in ("<=", "<") else FLIPPED[decision.verdict]


def _told(rule: Rule, verdict: Verdict, rounds: Sequence[RoundRatio], margin: float) -> str:
    if verdict == "pass":
        return "holds"
    if verdict == "inconclusive":
        return "not decided, measure more rounds (--rounds, or --budget SECONDS)"
    cpu = [math.log(ratio.cpu) for ratio in rounds if ratio.cpu is not None and ratio.cpu > 0]
    if len(cpu) < len(rounds):
        return "fails"
    witness = _verdict(rule, decide(cpu, margin))
    ratio = sequence(cpu).value
    if witness == "pass":
        return f"fails; but its CPU time is {ratio:.3f}x, within the limit: noise or waiting, not work"
    return f"fails; its CPU time, {ratio:.3f}x, agrees" if witness == "fail" else "fails"
