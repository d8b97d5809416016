"""What the charts draw, worked out from a report: the plot's points, the step graph, the rows of the waterfall."""

from __future__ import annotations

from collections.abc import Mapping

from edgekit.report import words
from edgekit.report.lineage import Node
from edgekit.report.rulings import title_of
from edgekit.report.schema import BaselineEntry, Deployable, Report
from edgekit.report.sentences import headline
from edgekit.report.tradeoff import Point
from edgekit.report.waterfall import Panel, Row
from edgekit.rules import main_metric

__all__ = ["lineage", "panels", "plot_points"]


def plot_points(report: Report) -> list[Point]:
    """The measured files that have both a latency and an accuracy; whiskers are their intervals."""
    baseline = report.baseline
    base = baseline.metrics.get(main_metric(baseline.metrics)) if baseline else None
    points = []
    for entry in (*((baseline,) if baseline else ()), *report.deployables):
        accuracy, latency = entry.metrics.get(main_metric(entry.metrics)), entry.latency_ms
        if accuracy is None or latency is None:
            continue
        drop = entry.accuracy_drop if isinstance(entry, Deployable) else None
        s = entry.speedup if isinstance(entry, Deployable) else None
        points.append(
            Point(
                name=entry.id,
                kind="baseline"
                if entry is baseline
                else "other"
                if entry.format == "hf"
                else entry.format.removesuffix("-genai"),
                latency=latency.p50,
                accuracy=accuracy,
                size=entry.size_bytes,
                latency_range=(latency.p50 * s.value / s.high, latency.p50 * s.value / s.low)
                if s and s.low > 0
                else None,
                accuracy_range=(base - drop.high, base - drop.low) if drop and base is not None else None,
            )
        )
    return points


def lineage(report: Report) -> list[Node]:
    """Source, steps and deployables, each after what it came from; empty where the steps do not say what they read."""
    if not any(step.parents for step in report.steps):
        return []
    files = {d.id: d for d in report.deployables}
    ids = {step.id for step in report.steps}
    sources = dict.fromkeys(p for step in report.steps for p in step.parents if p not in ids)
    nodes = [Node(name, "the source", style="source") for name in sources]
    for step in report.steps:
        file = files.get(step.id)
        is_baseline = report.baseline is not None and step.id == report.baseline.id
        style = (
            file.format.removesuffix("-genai")
            if file and file.format != "hf"
            else "baseline"
            if is_baseline
            else "step"
        )
        note = "baseline" if is_baseline else words.size(step.size_bytes)
        nodes.append(Node(step.id, note, step.parents, style))
    return nodes


def panels(report: Report) -> list[Panel]:
    """Accuracy, size and latency along the steps: the headline's own chain first, then what branches off."""
    best = headline(report)
    ids = [step.id for step in report.steps]
    above = {step.id: step.parents[0] for step in report.steps if step.parents}
    chain = [name for name in reversed(_ancestors(best.id, above)) if name in ids] if best else []
    order = chain + [name for name in ids if name not in chain]

    def row(name: str, known: Mapping[str, float], notes: Mapping[str, str]) -> Row:
        before = next((n for n in _ancestors(name, above)[1:] if n in known), "")
        if notes.get(before) == f"as {name}":
            before = ""  # the same measurement
        direct = before == above.get(name) and name in chain
        branch = "other branches" if chain and order.index(name) == len(chain) else ""
        return Row(name, known.get(name), known.get(before), before, not direct, branch, notes.get(name, ""))

    latencies, notes = _latencies(report)
    return [
        Panel(
            "accuracy",
            f"{title_of(main_metric(best.metrics if best else {}))}, change in points",
            "not measured",
            tuple(row(n, _accuracies(report), {}) for n in order),
        ),
        Panel("size", "Size", "not known", tuple(row(n, _sizes(report), {}) for n in order)),
        Panel("latency", "Latency p50", "not exported", tuple(row(n, latencies, notes) for n in order)),
    ]


def _files(report: Report) -> dict[str, BaselineEntry]:
    return {e.id: e for e in (*((report.baseline,) if report.baseline else ()), *report.deployables)}


def _accuracies(report: Report) -> dict[str, float]:
    """Of the file in its runtime where there is one, else of the step's output in torch."""
    files = _files(report)
    found = {s.id: s.metrics.get(main_metric(s.metrics)) for s in report.steps}
    found |= {n: a for n, e in files.items() if (a := e.metrics.get(main_metric(e.metrics))) is not None}
    return {name: value for name, value in found.items() if value is not None}


def _sizes(report: Report) -> dict[str, float]:
    found: dict[str, float] = {step.id: step.size_bytes for step in report.steps}
    return found | {name: entry.size_bytes for name, entry in _files(report).items()}


def _latencies(report: Report) -> tuple[dict[str, float], dict[str, str]]:
    """Median milliseconds of what was measured; a step whose plain export was measured has that one's, and a note."""
    found = {name: e.latency_ms.p50 for name, e in _files(report).items() if e.latency_ms}
    exported = {
        s.parents[0]: s.id for s in reversed(report.steps) if s.stage == "export" and s.parents and s.id in found
    }
    notes = {step: f"as {name}" for step, name in exported.items() if step not in found}
    return {step: found[exported[step]] for step in notes} | found, notes


def _ancestors(name: str, above: dict[str, str]) -> list[str]:
    """`name`, what it came from, and so on; a ring (a damaged report) ends where it closes."""
    found = [name]
    while found[-1] in above and above[found[-1]] not in found:
        found.append(above[found[-1]])
    return found
