"""`edgekit bench`: measure exported files, interleaved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekit.cli.options import config_of, config_options, json_option
from edgekit.runtimes.base import Workload

__all__ = ["command"]


def _bench(**values: Any) -> None:
    from edgekit.cli.console import Live, print_json
    from edgekit.compare import bench_report
    from edgekit.data.load import Columns, load_table

    columns = Columns(text=values["text_column"], pair=values["pair_column"], label=values["label_column"])
    table = load_table(values["data"], columns, split="test")
    workload = Workload.model_validate(config_of(Workload, values))
    report = bench_report(values["artifacts"], values["baseline"], table, workload, values["out"], Live())
    if values["as_json"]:
        print_json(report.model_dump(mode="json", by_alias=True))
        return
    from edgekit.cli.tables import show_report

    show_report(report, values["out"])


command = click.Command(
    "bench",
    callback=_bench,
    params=[
        click.Argument(["artifacts"], nargs=-1, required=True, type=click.Path(path_type=Path, exists=True)),
        click.Option(
            ["--baseline"], type=click.Path(path_type=Path, exists=True), help="What 1x is. [default: the first one]"
        ),
        click.Option(["--data"], required=True, help="Real inputs: csv, tsv, jsonl, parquet, or hub:OWNER/NAME."),
        click.Option(["--text-column"], default="text", show_default=True, help="Column of the text."),
        click.Option(["--pair-column"], default="", help="Column of the second text, for pairs."),
        click.Option(["--label-column"], default="", help="Column of the label; with it, accuracy is measured too."),
        click.Option(
            ["--out"], type=click.Path(path_type=Path, file_okay=False), help="Write reports and samples here."
        ),
        *config_options(Workload),
        *reversed(getattr(json_option(lambda: None), "__click_params__", [])),
    ],
    help="""Measure exported files, interleaved against a baseline.

\b
Example:
  edgekit bench build/onnx-int8 build/gguf-q8 --baseline build/teacher-onnx --data test.csv --label-column intent
""",
    context_settings={"help_option_names": ["-h", "--help"]},
)
