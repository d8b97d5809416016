"""`edgekit targets`: where files can be run, what is missing, and preparing it."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.options import json_option

__all__ = ["command"]

HELP = {"help_option_names": ["-h", "--help"]}
file_option = click.option(
    "--file", type=click.Path(path_type=Path), help="Your targets. [$EDGEKIT_TARGETS, targets.yaml]"
)


@click.group(invoke_without_command=True, context_settings=HELP)
@file_option
@json_option
@click.pass_context
def command(context: click.Context, file: Path | None, as_json: bool) -> None:
    """List where files can be run, with what is missing there and the command that adds it.

    \b
    Examples:
      edgekit targets
      edgekit targets setup arm64
      edgekit targets probe pi
    """
    if context.invoked_subcommand is not None:
        return
    from edgekit.cli.console import print_json, print_table
    from edgekit.targets import load_targets, missing

    found = {name: (entry, missing(entry)) for name, entry in load_targets(file).items()}
    if as_json:
        print_json(
            [
                {
                    "name": name,
                    "transport": entry.transport,
                    "about": entry.about,
                    "missing": [{"what": problem.what, "hint": problem.hint} for problem in problems],
                }
                for name, (entry, problems) in found.items()
            ]
        )
        return
    rows = [
        (
            name,
            entry.transport,
            "; ".join(problem.what for problem in problems) or "ready",
            "; ".join(dict.fromkeys(problem.hint for problem in problems if problem.hint)),
            entry.about,
        )
        for name, (entry, problems) in found.items()
    ]
    print_table("targets", ("name", "transport", "", "to add it", "about"), rows)


@command.command(context_settings=HELP)
@click.argument("what", type=click.Choice(["arm64", "web"]))
def setup(what: str) -> None:
    """Prepare what targets need, into a cache: arm64 (emulated cores, and the bundle for devices) or web (browsers).

    \b
    Example:
      edgekit targets setup arm64

    A second call finds everything there. The cache is $EDGEKIT_CACHE, else in the user's cache folder.
    """
    from edgekit.cli.console import Live
    from edgekit.targets import set_up

    click.echo(str(set_up(what, Live())))


@command.command(context_settings=HELP)
@click.argument("name")
@file_option
@json_option
def probe(name: str, file: Path | None, as_json: bool) -> None:
    """Ask a target what it is: processor, instruction sets, memory, governor, temperature, libraries.

    \b
    Example:
      edgekit targets probe pi --json
    """
    from edgekit.cli.console import print_json, print_table
    from edgekit.targets import find_target

    machine = find_target(name, file).transport.probe()
    if as_json:
        print_json(machine.model_dump(mode="json"))
        return
    rows = [(key, str(value)) for key, value in machine.model_dump(mode="json").items() if value not in (None, "", [])]
    print_table(name, ("", ""), rows)
