"""The recipes that ship, and finding one by name or path."""

from __future__ import annotations

from pathlib import Path

from edgekit.errors import RecipeError

__all__ = ["find_recipe", "names", "recipes_folder"]


def recipes_folder() -> Path:
    """Inside an installed wheel, or beside the package in a checkout."""
    inside = Path(__file__).parent / "_recipes"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "recipes"


def names() -> list[str]:
    """Names of the recipes that ship."""
    return sorted(path.stem for path in recipes_folder().glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """The file of a recipe that ships, or of one of the user's. Raises RecipeError with the nearest name."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise RecipeError(f"no such file: {path}")
        return path
    shipped = recipes_folder() / f"{name}.yaml"
    if name in names():
        return shipped
    from edgekit.yaml_files import nearest

    raise RecipeError(f"no recipe {name!r}", hint=f"{nearest(name, names())}; or give a .yaml file")
