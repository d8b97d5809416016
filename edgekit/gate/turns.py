"""Latency and speedup against the baseline that was measured beside it: round by round, by the sequential test."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgekit.gate.found import Found
from edgekit.report.schema import Control, RoundRatio
from edgekit.rounds import Bench, Measurement
from edgekit.rules import Rule
from edgekit.sequential import Decision, Verdict, decide, sequence
from edgekit.statistics import median_interval

__all__ = ["by_turns", "judge_turns", "noise", "settled", "too_noisy"]

FLIPPED: dict[Verdict, Verdict] = {"pass": "fail", "fail": "pass", "inconclusive": "inconclusive"}


def by_turns(rule: Rule) -> bool:
    """Whether the rounds decide it, where a report has them: a latency against its own baseline, or a speedup."""
    return rule.op != "==" and (rule.metric == "speedup" or (rule.relative and rule.metric.startswith("latency.")))


def judge_turns(rule: Rule, name: str, rounds: Sequence[RoundRatio], control: Control | None, margin: float) -> Found:
    """A rule that holds the file's latency (times the baseline's) or its speedup against `margin` (above 0)."""
    ratios = [float(getattr(ratio, _percentile(rule))) for ratio in rounds]
    if not ratios:
        return Found("fail", f"{name}: the report has no rounds of it beside the baseline: {rule.metric} is not known")
    if not all(math.isfinite(ratio) and ratio > 0 for ratio in ratios):
        return Found("fail", f"{name}: {rule.metric} of a round is not a number")
    logs = _logs(rule, ratios)
    interval = sequence(logs)
    unit = "x the baseline's" if rule.relative else "x"
    seen = f"{rule.metric} is {interval.value:.3f}{unit} [{interval.low:.3f}, {interval.high:.3f}]"
    told = f"{name}: {seen} over {len(logs)} rounds, limit {rule.op} {margin:.4g}x"
    if reason := too_noisy(rule, control, margin, interval.value):
        verdict: Verdict = "inconclusive"
        told = f"{told}: not decided, {reason}"
    else:
        verdict = _verdict(rule, decide(logs, margin))
        told = f"{told}: {_told(rule, verdict, rounds, margin)}"
    return Found(verdict, told, interval.value, margin, relative=rule.relative, interval=interval)


def settled(rules: Sequence[Rule], bench: Bench) -> bool:
    """Whether more rounds can change no verdict: every rule that the rounds decide is decided."""
    base = next((m for m in bench.measurements.values() if m.speedup is None), None)
    if base is None:
        return True
    for rule in rules:
        if not by_turns(rule):
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


def too_noisy(rule: Rule, control: Control | None, margin: float, ratio: float) -> str:
    """Why the gate refuses to tell times apart that closely; empty where it does not.

    `ratio`: the file's value over the baseline's, which is held against `margin`. What the control is off matters where
    it is more than the margin, and the file lies nearer to its limit than that.
    """
    wide, away = noise(control, _percentile(rule)), abs(ratio / margin - 1)
    if wide is None or wide <= max(abs(margin - 1), away):
        return ""
    return (
        f"the baseline against itself came out up to {wide:.1%} off, the margin is {abs(margin - 1):.1%} and the file "
        f"is {away:.1%} from the limit: measure more rounds, or on a quieter machine"
    )


def _of_measurement(rule: Rule, found: Measurement, base: Measurement, control: Control | None) -> Verdict:
    reference = getattr(base.latency_ms, _percentile(rule), None) if rule.relative else 1.0
    limit = rule.bound(reference)
    if not reference or limit is None or limit <= 0:
        return "fail"
    return judge_turns(rule, found.id, found.rounds, control, limit / reference).verdict


def _percentile(rule: Rule) -> str:
    return rule.metric.partition(".")[2] or "p50"


def _logs(rule: Rule, ratios: Sequence[float]) -> list[float]:
    """Of times over the baseline's, or for a speedup of the baseline's over them."""
    return [math.log(1 / ratio if rule.metric == "speedup" else ratio) for ratio in ratios]


def _verdict(rule: Rule, decision: Decision) -> Verdict:
    return decision.verdict if rule.op in ("<=", "<") else FLIPPED[decision.verdict]


def _told(rule: Rule, verdict: Verdict, rounds: Sequence[RoundRatio], margin: float) -> str:
    if verdict == "pass":
        return "holds"
    if verdict == "inconclusive":
        return "not decided, measure more rounds (bench --rounds 24, or run --set workload.rounds=24)"
    cpu = _logs(rule, [ratio.cpu for ratio in rounds if ratio.cpu is not None and ratio.cpu > 0])
    if len(cpu) < len(rounds):
        return "fails"
    witness = _verdict(rule, decide(cpu, margin))
    ratio = sequence(cpu).value
    if witness == "pass":
        return f"fails; but by CPU time it is {ratio:.3f}x, within the limit: noise or waiting, not work"
    return f"fails; by CPU time it is {ratio:.3f}x, which agrees" if witness == "fail" else "fails"
