"""`edgekit recipes`: list, show, copy, validate, schema."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.options import json_option
from edgekit.library import find_recipe, names

__all__ = ["command"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """List, show, copy and check recipes.

    \b
    Examples:
      edgekit recipes list
      edgekit recipes copy text-classifier my-recipe.yaml
      edgekit recipes validate my-recipe.yaml
    """


@command.command("list")
@json_option
def list_recipes(as_json: bool) -> None:
    """The recipes that ship, with what they do.

    \b
    Example:
      edgekit recipes list --json
    """
    from edgekit.cli.console import print_json, print_table
    from edgekit.recipe import load_recipe

    recipes = [load_recipe(find_recipe(name)) for name in names()]
    if as_json:
        print_json([{"name": r.name, "description": r.description, "steps": [s.id for s in r.steps]} for r in recipes])
        return
    print_table("", ("recipe", "what it does"), [(r.name, r.description) for r in recipes])
    click.echo("edgekit run RECIPE --help shows a recipe's options")


@command.command("show")
@click.argument("recipe")
def show_recipe(recipe: str) -> None:
    """Print a recipe's file.

    \b
    Example:
      edgekit recipes show text-classifier
    """
    click.echo(find_recipe(recipe).read_text(encoding="utf-8"), nl=False)


@command.command("copy")
@click.argument("recipe")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace an existing file.")
def copy_recipe(recipe: str, target: Path, force: bool) -> None:
    """Copy a recipe to TARGET, to edit it.

    \b
    Example:
      edgekit recipes copy text-classifier my-recipe.yaml
    """
    from edgekit.errors import UsageError

    if target.exists() and not force:
        raise UsageError(f"{target} exists", hint="give another name, or --force")
    try:
        target.write_bytes(find_recipe(recipe).read_bytes())
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}") from None
    click.echo(f"{target}: edit it, then: edgekit run {target} --help")


@command.command("validate")
@click.argument("recipe")
def validate_recipe(recipe: str) -> None:
    """Check a recipe; all problems are told at once (exit code 2).

    \b
    Example:
      edgekit recipes validate my-recipe.yaml
    """
    from edgekit.recipe import load_recipe

    path = find_recipe(recipe)
    loaded = load_recipe(path)
    click.echo(f"{path.name}: {len(loaded.steps)} steps, {len(loaded.exports)} exports, sound")


@command.command("schema")
def print_schema() -> None:
    """Print the JSON schema of recipes, for editors and CI.

    \b
    Example:
      edgekit recipes schema > recipe.schema.json
    """
    from edgekit.cli.console import print_json
    from edgekit.recipe_schema import recipe_schema

    print_json(recipe_schema())
