"""A report on the terminal, in the same cells and words as the HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.console import print_table
from edgekit.report import sentences, words
from edgekit.report.rulings import metric_name
from edgekit.report.tables import Line, deployable_lines, files_caption, gate_lines
from edgekit.rules import main_metric

if TYPE_CHECKING:
    from edgekit.report.schema import Report

__all__ = ["show_gate", "show_report"]


def show_report(report: Report, out: Path | None) -> None:
    """Steps, files, gate, verdict, and where to look next."""
    if report.steps:
        _steps(report)
    _lines("files", deployable_lines(report))
    click.echo(files_caption(report))
    show_gate(report)
    notes = [*report.notes, *(f"{d.id}: {note}" for d in report.deployables for note in d.notes)]
    for note in notes:
        click.echo(f"note: {note}")
    click.echo(f"\n{sentences.verdict(report)}")
    if out is not None:
        click.echo(f"report: {out / 'report.html'}")


def show_gate(report: Report) -> None:
    """The rules, judged."""
    if report.gate is None:
        return
    if report.gate.rules:
        _lines("gate", gate_lines(report))
    for text in (*report.gate.reasons, *report.gate.warnings):
        click.echo(f"gate: {text}")


def _steps(report: Report) -> None:
    metric = main_metric(report.baseline.metrics if report.baseline else {})
    rows = [
        (
            step.id,
            step.facts.summary,
            words.size(step.size_bytes),
            words.percent(step.metrics.get(metric)) if metric in step.metrics else "",
            "from the store" if step.cached else words.duration(step.seconds),
        )
        for step in report.steps
    ]
    print_table("steps", ("step", "what it did", "size", metric_name(metric), "time"), rows, right=(2, 3, 4))


def _lines(title: str, lines: Sequence[Line]) -> None:
    """The report's lines; a cell's second line goes under its first."""
    if not lines:
        return
    rows = [[f"{cell.text}\n{cell.extra}" if cell.extra else cell.text for cell in line.cells] for line in lines]
    cells = lines[0].cells
    print_table(title, [cell.label for cell in cells], rows, right=[at for at, cell in enumerate(cells) if cell.right])
