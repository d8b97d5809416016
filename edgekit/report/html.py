"""The report as one self-contained HTML page: inline CSS and SVG, no scripts, nothing loaded from anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from edgekit.report import lineage, tradeoff, view, waterfall, words
from edgekit.report.facts import about, clean, measured, numbers, skipped, step_state, warnings
from edgekit.report.method import method
from edgekit.report.rulings import title_of
from edgekit.report.schema import Report, StepEntry
from edgekit.report.sentences import comparison, headline, verdict, verdict_word
from edgekit.report.tables import MARKS, deployable_lines, files_caption, gate_lines
from edgekit.rules import main_metric

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["render_html"]

_WIDE, _NARROW = 1042.0, 340.0  # what a page and a phone leave for a chart, in CSS pixels


@dataclass(frozen=True)
class _Tile:
    label: str
    value: str
    unit: str
    note: str


def render_html(report: Report) -> str:
    """The page as text (UTF-8). It works offline and printed, in light and dark, on a phone. Everything is escaped."""
    report = clean(report)
    gate = report.gate
    word = verdict_word(gate)
    tone = gate.verdict if gate is not None else ""
    nodes, points, best = view.lineage(report), view.plot_points(report), headline(report)
    name = best.id if best else ""
    return _template().render(
        report=report,
        words=words,
        plural=words.plural,
        style=(files("edgekit.report") / "style.css").read_text(encoding="utf-8"),
        word=word,
        tone=tone,
        symbol=MARKS[gate.verdict] if gate is not None else "○",
        sentence=verdict(report),
        second=comparison(report) if gate is not None and not gate.passed else "",
        tiles=_tiles(report),
        gate=gate_lines(report),
        reasons=gate.reasons if gate else (),
        decided=[rule.sentence for rule in gate.rules if rule.sentence] if gate else [],
        files=deployable_lines(report),
        files_caption=files_caption(report),
        panels=[(panel.title, waterfall.draw(panel)) for panel in view.panels(report)] if report.steps else [],
        plot_wide=tradeoff.draw(points, _WIDE, 440, name),
        plot_narrow=tradeoff.draw(points, _NARROW, 400, name),
        graph_wide=lineage.draw_wide(nodes, _WIDE) if nodes else "",
        graph_narrow=lineage.draw_tree(nodes, _NARROW) if nodes else "",
        dashed=any(len(node.parents) > 1 for node in nodes),
        steps=[_step(step, report) for step in report.steps],
        about=about(report),
        method=method(report),
        notes=warnings(report),
    )


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    page = (files("edgekit.report") / "page.html").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(page)


def _tiles(report: Report) -> list[_Tile]:
    """The headline's four figures, large; a figure that was not measured has no tile."""
    best, baseline = headline(report), report.baseline
    if best is None:
        return []
    tiles = []
    if s := best.speedup:
        note = words.join(words.ratio_interval(s.low, s.high), f"against {s.against}")
        tiles.append(_Tile("Speed", words.ratio(s.value), "", note))
    if best.latency_ms:
        value, unit = words.milliseconds(best.latency_ms.p50).split(" ")
        was = f"was {words.milliseconds(baseline.latency_ms.p50)}, " if baseline and baseline.latency_ms else ""
        tiles.append(_Tile("Latency, median", value, unit, f"{was}p99 {words.milliseconds(best.latency_ms.p99)}"))
    value, unit = words.size(best.size_bytes).split(" ")
    was = f"was {words.size(baseline.size_bytes)}" if baseline else "the model file"
    tiles.append(_Tile("Size", value, unit, was))
    metric = main_metric(best.metrics)
    accuracy = best.metrics.get(metric)
    if accuracy is not None:
        before = baseline.metrics.get(metric) if baseline else None
        was = f"was {words.percent(before)}" if before is not None else "on the test data"
        tiles.append(_Tile(title_of(metric), words.percent(accuracy), "", was))
    return tiles


def _step(step: StepEntry, report: Report) -> dict[str, object]:
    return {
        "id": step.id,
        "stage": step.stage,
        "state": step_state(step),
        "size": words.size(step.size_bytes),
        "digest": words.short(step.artifact),
        "summary": step.facts.summary,
        "numbers": measured(step, report) + numbers(step.facts.numbers),
        "skipped": skipped(step.facts),
        "warnings": step.facts.warnings,
        "touched": step.facts.touched,
    }
