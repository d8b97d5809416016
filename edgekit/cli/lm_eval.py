"""`edgekit lm-eval`: tasks of lm-evaluation-harness on the file that ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekit.cli.options import json_option

__all__ = ["command"]


def _evaluate(**values: Any) -> None:
    from importlib.util import find_spec

    from edgekit.cli.console import print_json, print_table
    from edgekit.errors import MissingExtraError
    from edgekit.interrogate import Venue
    from edgekit.source import open_model

    if find_spec("lm_eval") is None:
        raise MissingExtraError("lm-evaluation-harness", "lm-eval")
    from edgekit.harness import evaluate_tasks

    found = evaluate_tasks(
        open_model(str(values["artifact"])),
        [name.strip() for name in values["tasks"].split(",")],
        limit=values["limit"],
        include=values["include_path"],
        venue=Venue(threads=values["threads"]),
    )
    if values["as_json"]:
        print_json({task: {**figures} for task, figures in found.items()})
        return
    rows = [(task, name, f"{value:.4f}") for task, figures in found.items() for name, value in figures.items()]
    print_table("", ("task", "figure", "value"), rows, right=(2,))


command = click.Command(
    "lm-eval",
    callback=_evaluate,
    params=[
        click.Argument(["artifact"], type=click.Path(path_type=Path, exists=True, file_okay=False)),
        click.Option(["--tasks"], required=True, help="Names of tasks, with commas between them."),
        click.Option(["--limit"], type=click.IntRange(0), default=0, help="Examples of each task; 0: all."),
        click.Option(
            ["--include-path"], type=click.Path(path_type=Path, exists=True), help="A folder with tasks of yours."
        ),
        click.Option(["--threads"], type=click.IntRange(0), default=0, help="CPU threads; 0: as many as it has."),
        *reversed(getattr(json_option(lambda: None), "__click_params__", [])),
    ],
    help="""Run tasks of lm-evaluation-harness on a language model's file, in the runtime that it ships to.

\b
Examples:
  edgekit lm-eval build/gguf-small --tasks blimp_passive_1,lambada_openai
  edgekit lm-eval ./smollm --tasks my_task --include-path tasks/ --limit 200

The harness gets its data from the hub; tasks of yours may read local files. Needs: pip install 'edgekit[lm-eval]'
""",
    context_settings={"help_option_names": ["-h", "--help"]},
)
