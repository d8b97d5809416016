"""`edgekit bench`: measure exported files, interleaved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekit.artifact import ENCODER_KINDS, Artifact
from edgekit.cli.options import checked, config_options, json_option, target_option
from edgekit.runtimes.base import Workload

__all__ = ["command"]


def _bench(**values: Any) -> None:
    from edgekit.api import bench
    from edgekit.cli.console import Live
    from edgekit.cli.run import show
    from edgekit.data.load import load_table
    from edgekit.rules import load_rules, parse_rules
    from edgekit.tasks.encoders import columns_of

    task = Artifact.open(values["baseline"] or values["artifacts"][0]).task
    kind = task.kind if task else "text-classification"
    columns = columns_of(
        kind, values["text_column"], values["pair_column"], values["label_column"], labelled=kind != ENCODER_KINDS[0]
    )
    table = load_table(values["data"], columns, split="test")
    workload = checked(Workload, values, "bench")
    rules = load_rules(values["rules_file"]) if values["rules_file"] else ()
    rules += parse_rules(values["rules"], "rule") if values["rules"] else ()
    report = bench(
        values["artifacts"],
        table,
        workload,
        baseline=values["baseline"],
        target=values["target"],
        rules=rules,
        out=values["out"],
        progress=Live(),
    )
    show(report, values["out"], values["as_json"])


command = click.Command(
    "bench",
    callback=_bench,
    params=[
        click.Argument(["artifacts"], nargs=-1, required=True, type=click.Path(path_type=Path, exists=True)),
        click.Option(
            ["--baseline"], type=click.Path(path_type=Path, exists=True), help="What 1x is. [default: the first one]"
        ),
        click.Option(
            ["--data"],
            required=True,
            help="Real inputs: csv, tsv, jsonl, parquet, txt (a text a line), CoNLL, hub:OWNER/NAME, or a folder of "
            "pictures by label.",
        ),
        click.Option(
            ["--text-column"],
            default="",
            help="Column of the text. [default: text; of words tokens; of pictures image]",
        ),
        click.Option(["--pair-column"], default="", help="Column of the second text, for pairs."),
        click.Option(["--label-column"], default="", help="Column of the label; with it, accuracy is measured too."),
        click.Option(
            ["--out"], type=click.Path(path_type=Path, file_okay=False), help="Write reports and samples here."
        ),
        target_option(),
        click.Option(["--rule", "rules"], multiple=True, metavar="RULE", help="Judge by this rule (repeat)."),
        click.Option(["--rules", "rules_file"], type=click.Path(path_type=Path), help="A YAML file with rules."),
        *config_options(Workload),
        *reversed(getattr(json_option(lambda: None), "__click_params__", [])),
    ],
    help="""Measure exported files, interleaved against a baseline.

\b
Examples:
  edgekit bench build/onnx-int8 build/gguf-q8 --baseline build/teacher-onnx --data test.csv --label-column intent
  edgekit bench new/onnx-int8 --baseline old/onnx-int8-main --data test.csv \\
        --rule 'latency.p50 <= 1.02x baseline' --budget 60
  edgekit bench build/onnx-int8 --data test.csv --target cortex-a53

With rules it is a gate: exit code 0 where all hold, 1 where not. With --budget it goes on until they are decided.
""",
    context_settings={"help_option_names": ["-h", "--help"]},
)
