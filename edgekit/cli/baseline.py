"""`edgekit baseline`: what later builds are held against, kept as a file beside the code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.options import json_option

if TYPE_CHECKING:
    from edgekit.baseline import Baseline, Update
    from edgekit.report.schema import BaselineEntry

__all__ = ["command"]

HELP = {"help_option_names": ["-h", "--help"]}
PATH = click.Path(path_type=Path, dir_okay=False)


@click.group(context_settings=HELP)
def command() -> None:
    """Keep, show and update the figures that later builds are held against.

    \b
    Examples:
      edgekit baseline save build/report.json --out baseline.json
      edgekit baseline show baseline.json
      edgekit baseline update baseline.json build/report.json --reason 'a smaller vocabulary, agreed in review'
    """


@command.command(context_settings=HELP)
@click.argument("report", type=PATH)
@click.option("--out", type=PATH, required=True, help="The file to write; commit it.")
@click.option("--force", is_flag=True, help="Write over a file that is there; its history is lost.")
def save(report: Path, out: Path, force: bool) -> None:
    """Keep what a gate needs of REPORT: sizes, accuracy, answers, instructions, latency with machine and conditions."""
    from edgekit.baseline import check_worth, reduce, write_baseline
    from edgekit.errors import UsageError
    from edgekit.report.schema import load_report

    found = load_report(report)
    check_worth(found)
    if out.exists() and not force:
        hint = f"edgekit baseline update {out} {report} --reason '...' keeps its history; or --force"
        raise UsageError(f"{out} is there already", hint=hint)
    kept = reduce(found)
    write_baseline(kept, out)
    click.echo(f"{out}: {', '.join(entry.id for entry in kept.files)}")


@command.command(context_settings=HELP)
@click.argument("file", type=PATH)
@json_option
def show(file: Path, as_json: bool) -> None:
    """Print what FILE holds, on what it was measured, and how it changed."""
    from edgekit.baseline import load_baseline
    from edgekit.cli.console import print_json

    found = load_baseline(file)
    if as_json:
        print_json(found.model_dump(mode="json", by_alias=True))
        return
    _figures(file, found)
    for update in found.history:
        _update(update)


@command.command(context_settings=HELP)
@click.argument("file", type=PATH)
@click.argument("report", type=PATH)
@click.option("--reason", required=True, help="Why the figures may change; it is kept in the file.")
def update(file: Path, report: Path, reason: str) -> None:
    """Take REPORT's figures into FILE; say and record what changed, and why that is allowed."""
    from datetime import UTC, datetime

    from edgekit.baseline import load_baseline, updated, write_baseline
    from edgekit.report.schema import load_report

    date = datetime.now(UTC).isoformat(timespec="seconds")
    made = updated(load_baseline(file), load_report(report), reason, date)
    write_baseline(made, file)
    _update(made.history[-1])


def _figures(file: Path, found: Baseline) -> None:
    from edgekit.cli.console import print_table
    from edgekit.figures import metric_value, show
    from edgekit.rules import METRICS

    def cell(name: str, entry: BaselineEntry) -> str:
        value = metric_value(name, entry)
        return show(name, value) if value is not None else ""

    names = [name for name, metric in METRICS.items() if metric.against_baseline]
    rows = [(name, *(cell(name, entry) for entry in found.files)) for name in names]
    rows = [row for row in rows if any(row[1:])]
    rows.append(("artifact", *(entry.artifact[:12] for entry in found.files)))
    print_table(str(file), ("", *(entry.id for entry in found.files)), rows)
    click.echo(f"recipe {found.recipe}, measured on {found.machine.cpu}")
    c = found.conditions
    if c is not None:
        shape = f"batch {c.batch}, {c.threads} threads, {c.rounds} rounds"
        click.echo(f"{c.n} examples of {c.data}; {shape}; {c.transport}, {c.fidelity}")


def _update(update: Update) -> None:
    click.echo(f"{update.date}: {update.reason}")
    for change in update.changes:
        click.echo(f"  {change}")
    if not update.changes:
        click.echo("  no figure changed")
