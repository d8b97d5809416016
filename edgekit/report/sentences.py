"""The report in words: which deployable stands for the run, the verdict as one sentence, a rule's figures."""

from __future__ import annotations

from edgekit.report import words
from edgekit.report.rulings import failure, metric_name
from edgekit.report.schema import BaselineEntry, Deployable, Gate, Report
from edgekit.rules import DROPS, MAIN_METRICS, SCORE_DROP, Rule, find_rules, main_metric

__all__ = ["baseline_name", "comparison", "file_kind", "headline", "runtime_name", "verdict", "verdict_word"]

_RUNTIMES = {
    "onnxruntime": "ONNX Runtime",
    "llama.cpp": "llama.cpp",
    "openvino": "OpenVINO",
    "torch": "PyTorch",
    "onnxruntime-genai": "onnxruntime-genai",
}
_FORMATS = {
    "onnx": "ONNX",
    "gguf": "GGUF",
    "openvino": "OpenVINO",
    "hf": "Transformers",
    "onnx-genai": "ONNX",
    "onnx-seq2seq": "ONNX",
}
_TOLERATED = 0.01  # accuracy that the headline may have lost where no rule says how much
_QUALITY = (*MAIN_METRICS, *DROPS, "macro_f1", "agreement", "perplexity", "kld", "minimal_pairs")


def headline(report: Report) -> Deployable | None:
    """The deployable that stands for the run: the fastest of those that keep to every limit of the gate on quality
    (without one, a point of accuracy), the smaller where equally fast; where none does, the one that lost least. None
    without deployables."""

    def lost(d: Deployable) -> float:
        if d.accuracy_drop is not None:
            return d.accuracy_drop.value
        main = main_metric(d.metrics)
        before, after = report.baseline.metrics.get(main) if report.baseline else None, d.metrics.get(main)
        return 0.0 if before is None or after is None else before - after

    def slow(d: Deployable) -> tuple[float, float, int]:
        return (
            -d.speedup.value if d.speedup else 0.0,
            d.latency_ms.p50 if d.latency_ms else float("inf"),
            d.size_bytes,
        )

    limits = _quality_limits(report)

    def keeps(d: Deployable) -> bool:
        values = {**d.metrics, f"{main_metric(d.metrics)}_drop": lost(d), SCORE_DROP: lost(d)}
        found = ((rule, limit, values.get(rule.metric)) for rule, limit in limits)
        return all(value is not None and rule.holds(value, limit) for rule, limit, value in found)

    fit = [d for d in report.deployables if (keeps(d) if limits else lost(d) <= _TOLERATED)]
    return min(fit, key=slow) if fit else min(report.deployables, key=lost, default=None)


def _quality_limits(report: Report) -> list[tuple[Rule, float]]:
    """The gate's rules on what the answers are worth, each with its limit in the metric's unit; whichever file a rule
    is about, no other may stand for the run that is worse."""
    entries = report.gate.rules if report.gate else ()
    found = [(rule, e.limit) for e in entries for rule in find_rules([e.rule])[0] if e.limit is not None]
    return [(rule, limit) for rule, limit in found if rule.metric in _QUALITY]


def file_kind(entry: BaselineEntry) -> str:
    """Format and precision: "ONNX int8"."""
    return words.join(_FORMATS[entry.format], entry.precision)


def runtime_name(name: str) -> str:
    """A runtime's name as its makers write it."""
    return _RUNTIMES.get(name, name)


def baseline_name(baseline: BaselineEntry | None) -> str:
    """The baseline with what executes it: "teacher (ONNX Runtime fp32)"."""
    if baseline is None:
        return "the baseline"
    runtime = runtime_name(baseline.runtime.name) if baseline.runtime else ""
    how = words.join(runtime or _FORMATS[baseline.format], baseline.precision)
    return f"{baseline.id} ({how})"


def verdict_word(gate: Gate | None) -> str:
    """PASS, FAIL, INCONCLUSIVE, or NO GATE where nothing was judged."""
    return "NO GATE" if gate is None else gate.verdict.upper()


def verdict(report: Report) -> str:
    """One sentence that says it all. A gate that does not pass begins with what failed, then what is undecided."""
    gate = report.gate
    if gate is None or gate.passed:
        return comparison(report)
    failed = [*(failure(rule) for rule in gate.rules if rule.verdict == "fail"), *gate.reasons]
    undecided = [failure(rule) for rule in gate.rules if rule.verdict == "inconclusive" and not rule.passed]
    told = [f"{words.plural(len(failed), 'check')} failed: {_first(failed)}"] if failed else []
    told += [f"{words.plural(len(undecided), 'check')} inconclusive: {_first(undecided)}"] if undecided else []
    return " ".join(told)


def _first(texts: list[str]) -> str:
    more = len(texts) - 3
    return "; ".join(texts[:3]) + (f"; and {more} more" if more > 0 else "") + "."


def comparison(report: Report) -> str:
    """The headline deployable against the baseline: speed, size, accuracy, each with its interval where it has one."""
    best, baseline = headline(report), report.baseline
    if best is None:
        return "This run made no deployable."
    if baseline is None:
        metric, known = main_metric(best.metrics), [words.size(best.size_bytes)]
        score, name = best.metrics.get(metric), "accurate" if metric == "accuracy" else metric_name(metric)
        known += [f"{words.percent(score)} {name}"] if score is not None else []
        known += [f"{words.milliseconds(best.latency_ms.p50)} at the median"] if best.latency_ms else []
        return f"{best.id} is {_listed(known)}; there is no baseline to compare it with."
    return (
        f"{best.id} is {_listed([*_speed(best), _size(best, baseline)])} {baseline_name(baseline)}, "
        f"and {_accuracy(best, baseline)}."
    )


def _listed(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _speed(best: Deployable) -> list[str]:
    s = best.speedup
    if s is None:
        return []
    if s.low <= 1 <= s.high:
        return [
            words.join("not measurably faster", f"({words.ratio(s.value)}", f"{words.ratio_interval(s.low, s.high)})")
        ]
    if s.value > 1:
        return [words.join(words.ratio(s.value), "faster", words.ratio_interval(s.low, s.high))]
    return [words.join(words.ratio(1 / s.value), "slower", words.ratio_interval(1 / s.high, 1 / s.low))]


def _size(best: Deployable, baseline: BaselineEntry) -> str:
    """Ends in "than" or "as", so that the baseline's name follows."""
    times = baseline.size_bytes / best.size_bytes if best.size_bytes else 0.0
    if times <= 0:
        return "of unknown size against"
    if words.ratio_number(times) == "1.00":
        return "as large as"
    return f"{words.ratio(times)} smaller than" if times > 1 else f"{words.ratio(1 / times)} larger than"


def _accuracy(best: Deployable, baseline: BaselineEntry) -> str:
    d, metric = best.accuracy_drop, main_metric(best.metrics)
    name = metric_name(metric)
    if d is None:
        before, after = baseline.metrics.get(metric), best.metrics.get(metric)
        if before is None or after is None:
            return "its accuracy was not compared"
        return f"reaches {words.percent(after)} {name} against {words.percent(before)} (not paired, no interval)"
    if words.points(d.value) == "0.0":
        return words.join(f"keeps its {name} (0.0 points", f"{words.points_interval(d.low, d.high)})")
    if d.value > 0:
        return words.join("loses", _points(d.value), f"of {name}", words.points_interval(d.low, d.high))
    return words.join("gains", _points(-d.value), f"of {name}", words.points_interval(-d.high, -d.low))


def _points(fraction: float) -> str:
    return f"{words.points(fraction)} points"
