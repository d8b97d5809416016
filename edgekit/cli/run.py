"""`edgekit run RECIPE`: one generated command per recipe, whose options are the recipe's params."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.options import common, param_options, target_option
from edgekit.library import find_recipe, names
from edgekit.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from edgekit.report.schema import Report

__all__ = ["RecipeGroup", "command"]

Callback = Callable[[str, dict[str, Any]], None]


class RecipeGroup(click.Group):
    """A group with one command per recipe; a path to a YAML file is a recipe too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.callback_of: Callback | None = None
        self.finish: Callable[[click.Command], click.Command] | None = None

    def list_commands(self, ctx: click.Context) -> list[str]:
        return names()

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        path = find_recipe(name)
        recipe = load_recipe(path)
        action = self.callback_of

        def call(**values: Any) -> None:
            assert action is not None
            params = {key: values.pop(key) for key in recipe.params}
            given = {key: value for key, value in params.items() if value is not None}
            action(name, {"params": given, **values})

        made = click.Command(
            name,
            callback=call,
            params=[*param_options(recipe.params)],
            help=_help(recipe, path),
            short_help=recipe.description,
        )
        assert self.finish is not None
        return self.finish(made)


def _help(recipe: Recipe, path: Path) -> str:
    """The description, the commands from the file's first lines, and the steps."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").rstrip())
    steps = " -> ".join(step.id for step in recipe.steps)
    return f"{recipe.description}\n\n\b\n" + "\n".join(lines or [""]) + f"\n\nSteps: {steps}"


def run_options(made: click.Command) -> click.Command:
    options = click.Command("", callback=common(lambda **_: None)).callback
    made.params += [
        click.Option(
            ["--out"], type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the results."
        ),
        set_option(),
        target_option(),
        *reversed(getattr(options, "__click_params__", [])),
    ]
    return made


def set_option() -> click.Option:
    return click.Option(
        ["--set", "overrides"],
        multiple=True,
        metavar="STEP.FIELD=VALUE",
        help="Change a step's config, or the workload's (workload.rounds=24); repeat.",
    )


def _run(recipe: str, values: dict[str, Any]) -> None:
    from edgekit.api import run
    from edgekit.cli.console import Live

    report = run(
        recipe,
        values["params"],
        values["out"],
        overrides=values["overrides"],
        store=values["store"],
        device=values["device"],
        threads=values["threads"],
        target=values["target"],
        progress=Live(),
    )
    show(report, values["out"], values["as_json"])


def show(report: Report, out: Path, as_json: bool) -> None:
    """Print the result; exit code 1 where the gate failed. Raises click.Abort where measuring was stopped."""
    from edgekit.report.schema import dump

    if as_json:
        click.echo(dump(report))
    else:
        from edgekit.cli.tables import show_report

        show_report(report, out)
    if report.interrupted:
        raise click.Abort
    if report.gate is not None and not report.gate.passed:
        sys.exit(1)


@click.group(cls=RecipeGroup, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Run a recipe: train, compress, export, measure, gate.

    \b
    RECIPE is one that ships (below) or a YAML file of yours:
      edgekit run text-classifier --help
      edgekit run text-classifier --model ./my-bert --train train.csv --test test.csv --out build
      edgekit run ./my-recipe.yaml --out build

    Finished steps are kept: the same command goes on where it stopped.
    """


assert isinstance(command, RecipeGroup)
command.callback_of = _run
command.finish = run_options
