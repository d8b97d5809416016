"""`edgekit explain`: why a file is slow or large, and what to try."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.options import json_option, store_option

if TYPE_CHECKING:
    from edgekit.diagnose import Diagnosis

__all__ = ["command", "show"]

LENGTH = 32  # tokens of a text, where none are given
MOST, OPERATORS = 8, 14  # layers in float and operators that are listed; --json has all


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("artifact")
@click.option("--parent", help="The file it was made from, or any other, to show the difference.")
@click.option("--batch", type=click.IntRange(1, 256), default=1, show_default=True, help="Texts of an inference.")
@click.option(
    "--length",
    type=click.IntRange(2, 8192),
    help="Tokens of a text; 32, or as many as the file takes.",
)
@click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads; 0: physical cores, at most 4.")
@click.option("--profile/--no-profile", default=True, help="Run the file and time its operators (ONNX, OpenVINO).")
@store_option
@json_option
def command(
    artifact: str,
    parent: str | None,
    batch: int,
    length: int | None,
    threads: int,
    profile: bool,
    store: Path | None,
    as_json: bool,
) -> None:
    """Say why ARTIFACT (a folder, or the first characters of a key) is slow or large, and what to try.

    \b
    Examples:
      edgekit explain build/onnx-int8
      edgekit explain build/onnx-int8 --parent build/onnx-f32 --length 128
      edgekit explain build/gguf-q8 --no-profile --json

    Bytes by kind and type of tensor, matrices that stayed in float, time by operator as the runtime executes it (from
    its own profiler, in a process of its own), what the processor lacks. Times of one run tell shares; to compare the
    speed of two files, use edgekit bench.
    """
    from edgekit.cli.console import print_json
    from edgekit.diagnose import diagnose, measure_profile
    from edgekit.inspect import find_artifact
    from edgekit.machine import default_threads, describe
    from edgekit.tasks.encoders import of_pictures

    found = find_artifact(artifact, store)
    other = find_artifact(parent, store) if parent else None
    most = length or min([LENGTH, *(a.task.max_length for a in (found, other) if a and a.task)])
    if found.task and of_pictures(found.task.kind):
        most = found.task.max_length
    shape = (batch, most, threads or default_threads())
    timed = measure_profile(found, *shape) if profile else None
    before = measure_profile(other, *shape) if profile and other else None
    told = diagnose(found, describe(), profile=timed, parent=other, parent_profile=before, shape=shape)
    if as_json:
        print_json(told.model_dump(mode="json"))
    else:
        show(told)


def show(told: Diagnosis) -> None:
    """The tables, and what follows from them."""
    _bytes(told)
    _in_float(told)
    _times(told)
    for text in told.lacks:
        click.echo(f"this processor ({told.cpu}) lacks {text}")
    for text in told.advice:
        click.echo(f"try: {text}")


def _bytes(told: Diagnosis) -> None:
    from edgekit.cli.console import print_table
    from edgekit.report.words import size

    rows = []
    for share in told.shares:
        row = [share.kind, share.type, str(share.count), size(share.bytes), f"{share.bytes / told.size_bytes:.0%}"]
        rows.append([*row, size(share.before)] if share.before is not None else row)
    head = ["what", "type", "tensors", "size", "share", *([f"in {told.parent}"] if told.parent else [])]
    title = f"{told.file}: {told.format}, {told.precision}, {size(told.size_bytes)}"
    print_table(title, head, rows, right=(2, 3, 4, 5))


def _in_float(told: Diagnosis) -> None:
    from edgekit.report.words import size

    if not told.in_float:
        click.echo("no matrix and no embedding table is float")
        return
    named = [f"{layer.name} ({size(layer.bytes)})" for layer in sorted(told.in_float, key=lambda layer: -layer.bytes)]
    more = f", and {len(named) - MOST} more" if len(named) > MOST else ""
    click.echo(f"in float: {', '.join(named[:MOST])}{more}")


def _times(told: Diagnosis) -> None:
    from edgekit.cli.console import print_table

    if not told.operators:
        return
    whole = sum(operator.ms for operator in told.operators)
    rows = []
    for operator in told.operators[:OPERATORS]:
        name = f"{operator.operator} (fused)" if operator.fused else operator.operator
        row = [name, str(operator.count), f"{operator.ms:.3f}", f"{operator.ms / whole:.0%}"]
        rows.append([*row, f"{operator.before:.3f}"] if operator.before is not None else row)
    if rest := told.operators[OPERATORS:]:
        ms = sum(operator.ms for operator in rest)
        row = [f"{len(rest)} others", str(sum(operator.count for operator in rest)), f"{ms:.3f}", f"{ms / whole:.0%}"]
        rows.append([*row, f"{sum(operator.before or 0 for operator in rest):.3f}"] if told.parent else row)
    before = f", {told.wall_before:.2f} ms in {told.parent}" if told.wall_before is not None else ""
    title = f"time by operator: {told.wall_ms:.2f} ms an inference{before} (batch {told.batch}, {told.length} tokens, "
    head = ["operator", "nodes", "ms", "share", *([f"in {told.parent}"] if told.parent else [])]
    print_table(f"{title}{told.threads} threads)", head, rows, right=(1, 2, 3, 4))
