"""`edgekit inspect`: what an artifact is, what was done to it, where it comes from."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edgekit.cli.options import json_option, store_option

__all__ = ["command"]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("artifact")
@store_option
@json_option
def command(artifact: str, store: Path | None, as_json: bool) -> None:
    """Say what ARTIFACT (a folder, or the first characters of a key) is and where it comes from.

    \b
    Examples:
      edgekit inspect build/onnx-int8
      edgekit inspect 3fa9c1d2 --json

    Exit code 1 where its files are not those it was sealed with.
    """
    from edgekit.cli.console import print_json, print_table
    from edgekit.inspect import describe_artifact, find_artifact
    from edgekit.report.words import size

    found = find_artifact(artifact, store)
    damage = found.damage()
    details = describe_artifact(found)
    if as_json:
        print_json({**found.manifest.model_dump(mode="json"), "path": str(found.path), "damage": [*damage], **details})
    else:
        manifest = found.manifest
        rows = [("stage", manifest.stage), ("format", manifest.format), ("key", manifest.key)]
        rows += [("did", manifest.facts.summary), ("model file", size(found.size_bytes))]
        rows += [("labels", str(len(manifest.task.labels)))] if manifest.task else []
        rows += [(f"from {name}", key[:12]) for name, key in manifest.parents.items()]
        rows += [(name, str(value)) for name, value in details.items()]
        rows += [("config", ", ".join(f"{k}={v}" for k, v in manifest.config.items()))]
        rows += [("note", warning) for warning in manifest.facts.warnings]
        print_table(str(found.path), ("", ""), rows)
        for problem in damage:
            click.echo(f"damaged: {problem}")
    if damage:
        sys.exit(1)
