"""Files that people write: YAML as frozen models, every problem told with its path and the nearest right name."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from edgekit.errors import Problem, RecipeError

__all__ = ["count", "load_mapping", "nearest", "problem_of"]


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice, which YAML would silently let the last win."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise RecipeError(f"line {line}: a key is a word, not a list or a mapping")
        if key.value in seen:
            raise RecipeError(f"line {line}: the key {key.value!r} is written twice")
        seen.add(key.value)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load_mapping(path: Path, kind: str) -> dict[str, Any]:
    """A file's mapping of keys; `kind`: what it is, for messages. Raises RecipeError where it cannot be read."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  # a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read the {kind} {path}: {error}") from None
    except RecipeError as error:
        raise RecipeError(f"{path}, {error.what}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that cannot be
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: a {kind} is a mapping of keys")
    return content


def nearest(name: str, known: Sequence[str]) -> str:
    """ "did you mean ...?" with the nearest known name, or the list of them."""
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


def count(problems: Sequence[Problem]) -> str:
    return "1 problem" if len(problems) == 1 else f"{len(problems)} problems"


def problem_of(model: type[BaseModel], error: Any, prefix: str = "") -> Problem:
    """A pydantic error as where, what and hint; an unknown key names the nearest known one."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".")
    where = ".".join(part for part in (prefix, path) if part)
    if error["type"] == "extra_forbidden":
        return Problem(where, "unknown key", nearest(str(error["loc"][-1]), _known_keys(model, error["loc"][:-1])))
    if error["type"] == "missing":
        return Problem(where, "is missing")
    message = error["msg"][0].lower() + error["msg"][1:]
    return Problem(where, f"{message}, not {error['input']!r}" if not isinstance(error["input"], dict) else message)


def _known_keys(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The keys allowed at `path`, by following the fields' types."""
    for part in path:
        field = model.model_fields.get(str(part))
        model = _model_in(field.annotation) or model if field is not None else model
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model inside `tuple[Model, ...]`, `dict[str, Model]` or the like."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)
