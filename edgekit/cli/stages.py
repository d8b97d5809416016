"""One command per stage: its options are the fields of the stage's config, and the data and teacher that it reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.artifact import ENCODER_KINDS
from edgekit.cli.options import checked, common, config_options
from edgekit.stages import STAGES, Stage

if TYPE_CHECKING:
    from edgekit.artifact import Task
    from edgekit.data.table import SplitName, Table

__all__ = ["command"]

EXAMPLES = {
    "finetune": "edgekit finetune ./bert tuned --train train.csv --validation val.csv --label-column intent",
    "distill": "edgekit distill small student --teacher tuned --train train.csv --validation val.csv",
    "mlm-pretrain": "edgekit mlm-pretrain ./bert adapted --unlabeled texts.txt",
    "student": "edgekit student tuned small --layers 3 --hidden 192 --heads 6 --ffn 768",
    "recase": "edgekit recase ./bert-uncased cased",
    "prune": "edgekit prune tuned small --keep-layers 3 --ffn 0.5 --vocabulary --train train.csv",
    "trim": "edgekit trim tuned small --share 0.6 --unlabeled texts.csv",
    "factorize": "edgekit factorize tuned thin --method whitened --rank-by budget --budget 0.5 --train train.csv",
    "quantize": "edgekit quantize onnx-folder int8 --method int8-dynamic --max-drop 0.003 --validation val.csv",
    "export": "edgekit export tuned onnx-folder --format onnx --validation val.csv",
    "lm-finetune": "edgekit lm-finetune ./smollm tuned --train chats.jsonl --text-column messages --method lora",
    "lm-distill": "edgekit lm-distill small student --teacher ./smollm --train texts.txt",
    "lm-prune": "edgekit lm-prune ./smollm small --parameters 0.7 --train texts.txt",
    "lm-quantize": "edgekit lm-quantize ./smollm int4 --method gptq --train texts.txt",
    "lm-export": "edgekit lm-export ./smollm phone --format gguf --type q4_k_m --train texts.txt --validation held.txt",
    "seq2seq-export": "edgekit seq2seq-export ./t5-small phone --precision int8 --validation texts.txt",
}


def command(name: str) -> click.Command:
    """The command of a stage."""
    stage = STAGES[name]
    holder = common(lambda **_: None)
    return click.Command(
        name,
        callback=lambda **values: _call(stage, values),
        params=[
            click.Argument(["source"], metavar="IN"),
            click.Argument(["out"], metavar="OUT", type=click.Path(path_type=Path)),
            *config_options(stage.config()),
            *_input_options(stage),
            *reversed(getattr(holder, "__click_params__", [])),
        ],
        help=_help(stage),
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _help(stage: Stage) -> str:
    takes = "an ONNX or GGUF folder" if "onnx" in stage.accepts else "a Transformers folder, hub id or pkg:NAME/path"
    return f"{stage.summary}\n\nIN is {takes}; OUT a new folder.\n\n\b\nExample:\n  {EXAMPLES[stage.name]}"


def _plain_text(stage: Stage, split: SplitName) -> str:
    """How plain text may be given; not where labels are needed."""
    if stage.task == "language-modeling" or stage.long_texts:
        return ", txt"
    return "" if split in stage.needs else ", txt (a text a line, without labels)"


def _input_options(stage: Stage) -> list[click.Option]:
    options = []
    language = stage.task != "text-classification"
    if stage.teachers:
        more = " Given again: their answers are averaged." if stage.teachers > 1 else ""
        help_ = f"The model to learn from.{more}"
        options.append(click.Option(["--teacher", "teachers"], required=True, multiple=True, help=help_))
    for split in stage.reads:
        text = f"The {split} data: csv, tsv, jsonl, parquet{_plain_text(stage, split)}, or hub:OWNER/NAME."
        options.append(click.Option([f"--{split}"], required=split in stage.needs and split == "train", help=text))
    if stage.reads:
        default = "" if stage.serves("token-classification") else "text"
        others = "" if default else "; of labelled words: tokens; of questions: question; of pictures: image"
        help_ = f"Column of the text. [default: text{others}]"
        options.append(click.Option(["--text-column"], default=default, help=help_))
    if stage.reads and language:
        length = click.IntRange(8)
        help_ = "Tokens of a window of text, or of an input. [default: as the model was opened, at most 512]"
        options.append(click.Option(["--max-length"], type=length, help=help_))
    elif stage.reads:
        options += [
            click.Option(
                ["--task"],
                type=click.Choice(ENCODER_KINDS),
                default=ENCODER_KINDS[0],
                show_default=True,
                help="What the model is for. Labelled words are read from columns tokens and labels, or a CoNLL file; "
                "questions from columns question, context and answers, or a JSON file as SQuAD's; scored pairs from "
                "sentence1, sentence2 and score; pictures from columns image and label, or a folder with a sub-folder "
                "for each label.",
            ),
            click.Option(
                ["--pair-column"], default="", help="Column of the second text, for pairs. [of questions: context]"
            ),
            click.Option(
                ["--label-column"], default="", help="Column of the label. [default: label, where the stage trains]"
            ),
            click.Option(
                ["--max-length"],
                type=click.IntRange(4),
                default=64,
                show_default=True,
                help="Longest input, tokens. Pictures are all as long.",
            ),
            click.Option(
                ["--segments/--no-segments"], default=False, help="Tell the two texts of a pair apart by type ids."
            ),
            click.Option(
                ["--overlap"],
                type=click.IntRange(0),
                default=128,
                show_default=True,
                help="Questions: tokens that neighbouring windows of a context share.",
            ),
            click.Option(
                ["--longest-answer"],
                type=click.IntRange(1),
                default=30,
                show_default=True,
                help="Questions: longest answer, tokens.",
            ),
        ]
    return options


def _call(stage: Stage, values: dict[str, Any]) -> None:
    from edgekit.api import run_stage
    from edgekit.cli.console import Live, print_json

    config = checked(stage.config(), values, stage.name)
    tables, task = _data(stage, values)
    done = run_stage(
        stage.name,
        config,
        values["source"],
        values["out"],
        tables=tables,
        teachers=values.get("teachers", ()),
        task=task,
        store=values["store"],
        device=values["device"],
        threads=values["threads"],
        progress=Live(),
    )
    manifest = done.artifact.manifest
    if values["as_json"]:
        print_json({"out": str(values["out"]), "cached": done.cached, "manifest": manifest.model_dump(mode="json")})
        return
    click.echo(f"{manifest.facts.summary}{' (from the store)' if done.cached else ''}")
    for skipped in manifest.facts.skipped:
        click.echo(f"skipped {skipped.name}: {skipped.reason}")
    for warning in manifest.facts.warnings:
        click.echo(f"note: {warning}")
    click.echo(f"{values['out']}")


def _data(stage: Stage, values: dict[str, Any]) -> tuple[Mapping[SplitName, Table], Task | None]:
    from edgekit.artifact import Task
    from edgekit.data.splits import load_splits
    from edgekit.tasks.encoders import columns_of, pairs_are_rows

    if not stage.reads:
        return {}, None
    sources: dict[SplitName, str] = {name: values.get(name) or "" for name in stage.reads}
    must = "validation" in stage.needs
    if stage.task != "text-classification":
        length = values["max_length"]
        task = Task(kind=stage.task, max_length=length) if length else None
        columns = columns_of(stage.task, values["text_column"])
        return load_splits(sources, columns, must_validate=must).tables, task
    columns = columns_of(
        values["task"],
        values["text_column"],
        values["pair_column"],
        values["label_column"],
        labelled=bool(stage.needs),  # who trains needs them to choose the epoch by
    )
    columns = columns.model_copy(update={"lines": not stage.long_texts})
    splits = load_splits(sources, columns, must_validate=must)
    task = Task(
        kind=values["task"],
        labels=(),
        max_length=values["max_length"],
        pair=bool(columns.pair) and pairs_are_rows(values["task"]),
        segments=values["segments"],
        overlap=values["overlap"],
        longest_answer=values["longest_answer"],
    )
    return splits.tables, task
