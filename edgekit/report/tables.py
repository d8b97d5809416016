"""The report's tables as text cells, the same for HTML, Markdown and the terminal."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.report import words
from edgekit.report.rulings import metric_name, range_text, readings, title_of
from edgekit.report.schema import BaselineEntry, Deployable, Latency, Report, RuleEntry, Speed
from edgekit.report.sentences import file_kind, headline
from edgekit.rules import main_metric
from edgekit.sequential import Verdict

__all__ = ["MARKS", "Cell", "Line", "deployable_lines", "files_caption", "gate_lines"]


_TOLD = {  # shares that stand beside a perplexity
    "accuracy": "of next tokens",
    "minimal_pairs": "of minimal pairs",
    "chrf": "chrF",
    "exact_match": "of answers exact",
}
MARKS: dict[Verdict, str] = {"pass": "✓", "fail": "✗", "inconclusive": "?"}


@dataclass(frozen=True)
class Cell:
    """A table cell: its column, its text, a second line (an interval), and whether it is a number (right-aligned)."""

    label: str
    text: str
    extra: str = ""
    right: bool = True


@dataclass(frozen=True)
class Line:
    """A table row. `style`: best, reference, a verdict or nothing; `kind`: the file's format, for its mark."""

    cells: tuple[Cell, ...]
    style: str = ""
    kind: str = ""


def gate_lines(report: Report) -> list[Line]:
    """One line a rule: rule, file that decided, value, limit, result. The symbol never stands without its word."""
    return [_rule_line(rule) for rule in (report.gate.rules if report.gate else ())]


def _rule_line(rule: RuleEntry) -> Line:
    value, limit = readings(rule)
    why = rule.sentence if rule.value is None or rule.limit is None else ""
    cells = (
        Cell("Rule", rule.rule, why, right=False),
        Cell("Decided by", rule.deployable or words.MISSING, right=False),
        Cell("Value", value, range_text(rule)),
        Cell("Limit", limit),
        Cell("Result", f"{MARKS[rule.verdict]} {rule.verdict}", _allowed(rule), right=False),
    )
    return Line(cells, rule.verdict)


def _allowed(rule: RuleEntry) -> str:
    return "the rule lets it pass" if rule.passed and rule.verdict == "inconclusive" else ""


def deployable_lines(report: Report) -> list[Line]:
    """The baseline, then every deployable: size, accuracy, drop, latencies, speedup, throughput, memory, samples."""
    best = headline(report)
    lines = [_file_line(report, report.baseline, "reference")] if report.baseline else []
    return lines + [_file_line(report, d, "best" if d is best else "") for d in report.deployables]


def _file_line(report: Report, entry: BaselineEntry, style: str) -> Line:
    latency = entry.latency_ms
    faster = entry.speedup if isinstance(entry, Deployable) else None
    reference = "baseline" if style == "reference" else ""
    times = report.baseline.size_bytes / entry.size_bytes if report.baseline and entry.size_bytes else None
    smaller = f"{words.ratio(times)} smaller" if times and not reference and words.ratio_number(times) != "1.00" else ""
    if times and times < 1 and smaller:
        smaller = f"{words.ratio(1 / times)} larger"
    cells = (
        Cell("File", entry.id, words.join(file_kind(entry), f"· {reference}" if reference else ""), right=False),
        Cell("Size", words.size(entry.size_bytes), smaller),
        *_quality(entry, reference),
        Cell("p50", words.milliseconds(latency.p50 if latency else None), _p50_range(latency)),
        Cell("p90", words.milliseconds(latency.p90 if latency else None)),
        Cell("p99", words.milliseconds(latency.p99 if latency else None)),
        Cell(
            "Speed-up",
            f"1{words.TIMES}" if reference else words.ratio(faster.value if faster else None),
            words.ratio_interval(faster.low, faster.high) if faster else "",
        ),
        *_flow(entry),
        Cell("Peak memory", words.size(entry.peak_rss_bytes)),
        Cell("Timed", f"n={words.count(latency.n)}" if latency else words.MISSING),
    )
    return Line(cells + _counted(report, entry), style, entry.format.removesuffix("-genai"))


def _quality(entry: BaselineEntry, reference: str) -> tuple[Cell, ...]:
    """What the answers are worth: of a language model perplexity and divergence, else accuracy and points lost."""
    found = entry.metrics
    if "kld" in found or "perplexity" in found:
        parts = [(found.get(name), what) for name, what in _TOLD.items()]
        told = ", ".join(f"{words.percent(value)} {what}" for value, what in parts if value is not None)
        apart = reference or words.number(found.get("kld"))
        same = "" if reference else f"{words.percent(found.get('agreement'))} the same"
        return Cell("Perplexity", words.number(found.get("perplexity")), told), Cell("KL divergence", apart, same)
    f1, metric = found.get("macro_f1"), main_metric(found)
    drop = entry.accuracy_drop if isinstance(entry, Deployable) else None
    return (
        Cell(title_of(metric), words.percent(found.get(metric)), f"F1 {words.percent(f1)}" if f1 is not None else ""),
        Cell(
            "Points lost",
            reference or (words.points(drop.value) if drop else words.MISSING),
            words.points_interval(drop.low, drop.high) if drop else "",
        ),
    )


def _flow(entry: BaselineEntry) -> tuple[Cell, ...]:
    """How much a second: tokens of a language model, else examples in the largest batch."""
    if (speed := entry.speed) is not None:
        decode, prefill = speed.decode_per_second.value, speed.prefill_per_second.value
        share = f"{words.percent(speed.bandwidth_share, 0)} of memory's rate"
        return (
            Cell("Decode", words.rate(decode), share),
            Cell("Prefill", words.rate(prefill), ", ".join(_waiting(speed))),
        )
    flow = entry.throughput[-1] if entry.throughput else None
    if flow is None:
        return (Cell("Throughput", words.rate(None), ""),)
    spread = f", {words.interval(*map(words.rate, flow.interval))}" if flow.interval is not None else ""
    return (Cell("Throughput", words.rate(flow.per_second), f"batch {flow.batch}{spread}"),)


def _waiting(speed: Speed) -> list[str]:
    """What passes before the first token."""
    encoder = speed.encoder_ms
    told = (
        [] if encoder is None else [f"encoder {words.milliseconds(encoder.p50)}, p90 {words.milliseconds(encoder.p90)}"]
    )
    return [*told, f"first token {words.milliseconds(speed.ttft_ms.value)}"]


def _p50_range(latency: Latency | None) -> str:
    if latency is None or latency.p50_interval is None:
        return ""
    return words.interval(*(words.milliseconds(end) for end in latency.p50_interval))


def _counted(report: Report, entry: BaselineEntry) -> tuple[Cell, ...]:
    """Instructions of one inference, where anything counted them."""
    if not any(e.instructions for e in (report.baseline, *report.deployables) if e is not None):
        return ()
    return (Cell("Instructions", words.count(entry.instructions.median if entry.instructions else None)),)


def files_caption(report: Report) -> str:
    """What the figures in the deployables' table stand on."""
    c = report.conditions
    if c is None:
        return "Each file in its own runtime."
    timed = f"batch {c.batch}, {words.plural(c.threads, 'thread')}"
    metric = metric_name(main_metric(report.baseline.metrics if report.baseline else {}))
    scored = f"{metric} on {words.plural(c.n, 'example')} of {c.data}"
    return f"Each file in its own runtime: {timed}; {scored}. 95% intervals in brackets."
