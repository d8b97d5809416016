"""`edgekit compare`: why two reports differ."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.options import json_option

__all__ = ["command"]

PATH = click.Path(path_type=Path, dir_okay=False)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("first", type=PATH)
@click.argument("second", type=PATH)
@json_option
def command(first: Path, second: Path, as_json: bool) -> None:
    """Explain what changed from the report FIRST to the report SECOND, and what can be said of it.

    \b
    Example:
      edgekit compare main/report.json build/report.json
    """
    from edgekit.cli.console import print_json
    from edgekit.difference import difference
    from edgekit.report.schema import load_report

    found = difference(load_report(first), load_report(second))
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    for file in found.files:
        click.echo(file.id)
        for line in file.lines or ("no difference",):
            click.echo(f"  {line}")
    for title, lines in (("machine and conditions", found.context), ("steps", found.steps)):
        click.echo(title)
        for line in lines or ("no difference",):
            click.echo(f"  {line}")
