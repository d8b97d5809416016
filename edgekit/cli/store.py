"""`edgekit store`: ls, verify, gc, export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.options import json_option, store_option

if TYPE_CHECKING:
    from edgekit.store import Store

__all__ = ["command"]


def _open(path: Path | None) -> Store:
    from edgekit.store import Store, default_root

    return Store(path or default_root())


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """List, check, clean and export what runs have made.

    \b
    Examples:
      edgekit store ls
      edgekit store verify
      edgekit store gc --keep-days 30
      edgekit store export 3fa9c1d2 ./model
    """


@command.command("ls")
@store_option
@json_option
def list_artifacts(store: Path | None, as_json: bool) -> None:
    """List artifacts, newest first.

    \b
    Example:
      edgekit store ls --json
    """
    from edgekit.cli.console import print_json, print_table
    from edgekit.report.words import size

    found = _open(store)
    artifacts = found.artifacts()
    if as_json:
        print_json([a.manifest.model_dump(mode="json", exclude={"files"}) for a in artifacts])
        return
    rows = [(a.short, a.manifest.stage, a.format, size(a.size_bytes), a.manifest.facts.summary) for a in artifacts]
    print_table(str(found.root), ("key", "stage", "format", "size", "what it did"), rows, right=(3,))


@command.command("verify")
@store_option
@json_option
def verify(store: Path | None, as_json: bool) -> None:
    """Check every file against its digest; exit code 1 where something is damaged.

    \b
    Example:
      edgekit store verify
    """
    from edgekit.cli.console import print_json

    result: dict[str, list[str]] = _open(store).verify()
    bad = {key: problems for key, problems in result.items() if problems}
    if as_json:
        print_json({"artifacts": len(result), "damaged": {key: [*problems] for key, problems in bad.items()}})
    else:
        for key, problems in bad.items():
            click.echo(f"{key[:12]}: {'; '.join(problems)}")
        click.echo(f"{len(result)} artifacts, {len(bad)} damaged{'; they are made again when needed' if bad else ''}")
    if bad:
        sys.exit(1)


@command.command("gc")
@store_option
@click.option(
    "--keep-days", type=click.FloatRange(0), default=30.0, show_default=True, help="Keep what was used since."
)
def collect(store: Path | None, keep_days: float) -> None:
    """Remove artifacts that were not used for a while, and what crashes left.

    \b
    Example:
      edgekit store gc --keep-days 7
    """
    from edgekit.report.words import size

    removed, freed = _open(store).gc(keep_days)
    for name in removed:
        click.echo(f"removed {name}")
    click.echo(f"{len(removed)} removed, {size(freed)} freed")


@command.command("export")
@click.argument("key")
@click.argument("out", type=click.Path(path_type=Path))
@store_option
def export(key: str, out: Path, store: Path | None) -> None:
    """Copy the artifact whose key starts with KEY to OUT.

    \b
    Example:
      edgekit store export 3fa9c1d2 ./model
    """
    found = _open(store)
    artifact = found.find(key)
    click.echo(f"{artifact.short} ({artifact.manifest.stage}) -> {found.export(artifact, out)}")
