"""A gate's rules in words: what was judged, the value and the limit in their unit, what failed."""

from __future__ import annotations

from edgekit.report import words
from edgekit.report.schema import RuleEntry
from edgekit.rules import BYTES, COUNT, FRACTION, METRICS, RATE, TIME, TIMES, Rule, find_rules

__all__ = ["failure", "metric_name", "metric_of", "range_text", "readings", "title_of", "value_text"]

_NAMES = {"speedup": "speed-up", "macro_f1": "macro-F1", "size_ratio": "size ratio", "memory": "peak memory"}
_NAMES |= {"entity_f1": "entity F1", "entity_f1_drop": "entity F1 drop"}
_NAMES |= {"answer_f1": "answer F1", "answer_f1_drop": "answer F1 drop"}
_NAMES |= {"spearman": "Spearman correlation", "spearman_drop": "Spearman correlation drop"}
_NAMES |= {"chrf": "chrF", "chrf_drop": "chrF drop"}
_OPS = {"<=": "at most", ">=": "at least", "<": "below", ">": "above", "==": "exactly"}


def _parse(rule: str) -> Rule | None:
    """The rule; None for a text of another grammar, which is then shown as it stands."""
    rules, _ = find_rules([rule])
    return rules[0] if rules else None


def metric_of(rule: str) -> str:
    """The metric that a rule judges; empty where it cannot be read."""
    parsed = _parse(rule)
    return parsed.metric if parsed else ""


def metric_name(metric: str) -> str:
    """A metric for people: "latency.p50" is "latency p50"."""
    return _NAMES.get(metric, metric.replace(".", " ").replace("_", " "))


def title_of(metric: str) -> str:
    """Its name at the head of a column: "Accuracy", "Entity F1"."""
    name = metric_name(metric)
    return name[0].upper() + name[1:]


def value_text(metric: str, value: float | None, finer: int = 0) -> str:
    """A metric's value in its unit, `finer` digits beyond the usual; "not measured" where there is none."""
    if value is None:
        return "not measured"
    units = METRICS[metric].units if metric in METRICS else None
    if metric.endswith("_drop"):
        return f"{words.points(value, 1 + finer)} points"
    if units == FRACTION:
        return words.percent(value, 1 + finer)
    if units == TIME:
        return words.milliseconds(value, 3 + finer)
    if units == BYTES:
        return words.size(value, 3 + finer)
    if units == COUNT:
        return words.count(value)
    if units == RATE:
        return words.rate(value, 3 + finer)
    if units == TIMES:
        return f"{words.number(value, 3 + finer)}{words.TIMES}" if finer else words.ratio(value)
    return words.number(value, 3 + finer)


def readings(rule: RuleEntry) -> tuple[str, str]:
    """Value and limit ("at most 1.0 points"), with as many digits as tell the two apart where they differ; both are
    ratios of a time that is held against the baseline's ("1.031×", "at most 1.020×")."""
    parsed = _parse(rule.rule)
    metric = parsed.metric if parsed else ""
    if rule.relative and rule.value is not None and rule.limit is not None:
        limit = words.join(_OPS[parsed.op] if parsed else "", _finely(rule.limit))
        return _finely(rule.value), limit
    if rule.limit is None:
        return value_text(metric, rule.value), words.MISSING
    for finer in range(4):
        value, limit = value_text(metric, rule.value, finer), value_text(metric, rule.limit, finer)
        if value != limit or rule.value == rule.limit:
            break
    return value, words.join(_OPS[parsed.op] if parsed else "", limit)


def failure(rule: RuleEntry) -> str:
    """What failed ("accuracy drop of onnx-int8 is 2.1 points, allowed is at most 1.0 points"), or why undecided."""
    metric = metric_of(rule.rule)
    if not metric or rule.value is None or rule.limit is None or rule.verdict == "inconclusive":
        return rule.sentence or f"{rule.rule}: not measured"
    value, limit = readings(rule)
    of = f" of {rule.deployable}" if rule.deployable else ""
    baseline = " the baseline's" if rule.relative else ""
    return f"{metric_name(metric)}{of} is {value}{baseline}, allowed is {limit}"


def range_text(rule: RuleEntry) -> str:
    """The value's interval, in its unit; nothing where there is none."""
    if rule.interval is None:
        return ""
    if rule.relative:
        return words.interval(*(f"{end:.3f}" for end in rule.interval))
    return words.interval(*(value_text(metric_of(rule.rule), end) for end in rule.interval))


def _finely(ratio: float) -> str:
    return f"{ratio:.3f}{words.TIMES}"
