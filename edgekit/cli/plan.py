"""`edgekit plan RECIPE`: what a run would do; nothing runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.options import json_option, store_option
from edgekit.cli.run import RecipeGroup, set_option

if TYPE_CHECKING:
    from pydantic import JsonValue

    from edgekit.plan import Plan

__all__ = ["command"]


def _options(made: click.Command) -> click.Command:
    holder = click.Command("", callback=store_option(json_option(lambda **_: None))).callback
    made.params += [
        click.Option(["--out"], type=click.Path(path_type=Path, file_okay=False), help="Where the run would write."),
        set_option(),
        *reversed(getattr(holder, "__click_params__", [])),
    ]
    return made


def _plan(recipe: str, values: dict[str, Any]) -> None:
    from edgekit.api import plan
    from edgekit.cli.console import print_json

    made = plan(recipe, values["params"], overrides=values["overrides"], store=values["store"], out=values["out"])
    if values["as_json"]:
        print_json(_as_json(made))
    else:
        _show(made)


def _as_json(made: Plan) -> JsonValue:
    return {
        "recipe": made.recipe.name,
        "model": str(made.model.path),
        "rows": {name: len(table) for name, table in made.splits.tables.items()},
        "labels": len(made.task.labels),
        "exports": list(made.recipe.exports),
        "notes": list(made.notes),
        "steps": [
            {
                "id": step.id,
                "stage": step.stage,
                "inputs": list(step.parents),
                "key": step.key,
                "cached": step.cached,
                "size_bytes": step.cost.bytes,
                "memory_bytes": step.cost.memory,
                "seconds": round(step.cost.seconds, 1),
            }
            for step in made.steps
        ],
    }


def _show(made: Plan) -> None:
    from edgekit.cli.console import print_table
    from edgekit.report.words import duration, short, size

    rows = [
        (
            step.id,
            step.stage,
            " + ".join(step.parents),
            short(step.key),
            "from the store" if step.cached else "run",
            size(step.cost.bytes),
            "" if step.cached else size(step.cost.memory),
            "" if step.cached else f"~{duration(step.cost.seconds)}",
        )
        for step in made.steps
    ]
    columns = ("step", "stage", "reads", "key", "state", "size", "memory", "time")
    print_table(f"plan of {made.recipe.name} (predicted)", columns, rows, right=(5, 6, 7))
    todo = [step for step in made.steps if not step.cached]
    seconds = sum(step.cost.seconds for step in todo)
    click.echo(f"{len(todo)} of {len(made.steps)} steps to run, about {duration(seconds)}, then measuring")
    for note in made.notes:
        click.echo(f"note: {note}")


@click.group(cls=RecipeGroup, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Show what a recipe would do, cost and need; runs nothing.

    \b
    Example:
      edgekit plan text-classifier --model ./my-bert --train train.csv --test test.csv

    What cannot work is refused here, with the reason and the way out.
    """


assert isinstance(command, RecipeGroup)
command.callback_of = _plan
command.finish = _options
