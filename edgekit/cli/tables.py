"""A report on the terminal, in the same words as the HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.console import print_table
from edgekit.report import sentences, words

if TYPE_CHECKING:
    from edgekit.report.schema import BaselineEntry, Report

__all__ = ["show_gate", "show_report"]


def show_report(report: Report, out: Path | None) -> None:
    """Steps, files, gate, verdict, and where to look next."""
    _steps(report)
    _files(report)
    if report.gate is not None:
        show_gate(report)
    for note in report.notes:
        click.echo(f"note: {note}")
    click.echo(f"\n{sentences.verdict(report)}")
    if out is not None:
        click.echo(f"report: {out / 'report.html'}")


def _steps(report: Report) -> None:
    rows = [
        (
            step.id,
            step.facts.summary,
            words.size(step.size_bytes),
            words.percent(step.metrics.get("accuracy")) if "accuracy" in step.metrics else "",
            "from the store" if step.cached else words.duration(step.seconds),
        )
        for step in report.steps
    ]
    print_table("steps", ("step", "what it did", "size", "accuracy", "time"), rows, right=(2, 3, 4))


def _files(report: Report) -> None:
    entries = [*([report.baseline] if report.baseline else []), *report.deployables]
    columns = ("file", "format", "size", "accuracy", "drop", "p50", "p90", "p99", "speedup", "memory")
    print_table("files", columns, [_file(entry, entry is report.baseline) for entry in entries], right=range(2, 10))


def _file(entry: BaselineEntry, baseline: bool) -> tuple[str, ...]:
    drop, speedup = getattr(entry, "accuracy_drop", None), getattr(entry, "speedup", None)
    latency = entry.latency_ms
    return (
        entry.id,
        sentences.file_kind(entry),
        words.size(entry.size_bytes),
        words.percent(entry.metrics.get("accuracy")),
        "baseline"
        if baseline
        else f"{words.points(drop.value)} {words.points_interval(drop.low, drop.high)}"
        if drop
        else "",
        *(words.milliseconds(getattr(latency, p)) if latency else "" for p in ("p50", "p90", "p99")),
        "1x"
        if baseline
        else f"{words.ratio(speedup.value)} {words.ratio_interval(speedup.low, speedup.high)}"
        if speedup
        else "",
        words.size(entry.peak_rss_bytes) if entry.peak_rss_bytes else "",
    )


def show_gate(report: Report) -> None:
    """The rules, judged."""
    gate = report.gate
    if gate is None:
        return
    rows = [
        (
            rule.rule,
            sentences.rule_value(rule.rule, rule.value),
            sentences.bound(rule.rule),
            rule.deployable,
            "pass" if rule.passed else "FAIL",
        )
        for rule in gate.rules
    ]
    print_table("gate", ("rule", "value", "limit", "decided by", ""), rows, right=(1, 2))
    for text in (*gate.reasons, *gate.warnings):
        click.echo(f"gate: {text}")
