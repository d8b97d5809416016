"""`edgekit doctor`: what this machine can do, and the command that adds what is missing."""

from __future__ import annotations

import click

from edgekit.cli.options import json_option

__all__ = ["command"]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@json_option
def command(as_json: bool) -> None:
    """Say what this machine can do and what is missing.

    \b
    Example:
      edgekit doctor --json
    """
    from edgekit.cli.console import print_json, print_table
    from edgekit.doctor import examine
    from edgekit.machine import describe

    machine = describe()
    checks = examine()
    if as_json:
        print_json({"machine": machine.model_dump(mode="json"), "checks": [c.model_dump(mode="json") for c in checks]})
        return
    rows = [(c.name, "ok" if c.ok else "missing", c.found, "" if c.ok else c.remedy) for c in checks]
    memory = f"{machine.memory_bytes / 1e9:.0f} GB"
    print_table(f"{machine.cpu}, {machine.cores} cores, {memory}", ("", "", "found", "to add it"), rows)
