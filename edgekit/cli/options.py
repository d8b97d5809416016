"""Click options generated from config models and recipe params."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from edgekit.errors import Problem, UsageError
from edgekit.recipe import Param

__all__ = [
    "checked",
    "common",
    "config_of",
    "config_options",
    "json_option",
    "param_options",
    "store_option",
    "target_option",
]

C = TypeVar("C", bound=BaseModel)
F = TypeVar("F", bound=Callable[..., Any])
PLAIN: dict[Any, click.ParamType[Any]] = {int: click.INT, float: click.FLOAT, str: click.STRING}


def store_option(function: F) -> F:
    return click.option(
        "--store", type=click.Path(path_type=Path, file_okay=False), help="Folder of finished steps. [$EDGEKIT_STORE]"
    )(function)


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, progress on stderr.")(function)


def target_option() -> click.Option:
    return click.Option(
        ["--target"], default="cpu", show_default=True, help="Where files are measured; see: edgekit targets."
    )


def common(function: F) -> F:
    """Options of everything that works: where the store is, on what, how to print."""
    function = click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads; 0 takes all.")(function)
    function = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1.")(function)
    return store_option(json_option(function))


def config_options(config: type[BaseModel]) -> list[click.Option]:
    """One option per field, with its type, default and description."""
    return [_option(name, field) for name, field in config.model_fields.items()]


def config_of(config: type[BaseModel], values: dict[str, Any]) -> dict[str, Any]:
    """The values that the user gave (others keep the model's defaults)."""
    return {name: values[name] for name in config.model_fields if values.get(name) not in (None, ())}


def checked(config: type[C], values: dict[str, Any], command: str) -> C:
    """The config that the user's options make. Raises UsageError for values that it cannot have, by their options."""
    try:
        return config.model_validate(config_of(config, values))
    except ValidationError as error:
        names = ["-".join(map(str, found["loc"])).replace("_", "-") for found in error.errors()]
        told = zip(names, error.errors(), strict=True)
        problems = tuple(Problem(f"--{name}" if name else "options", found["msg"]) for name, found in told)
        raise UsageError(f"{command}: options that cannot work", problems=problems) from None


def param_options(params: dict[str, Param]) -> list[click.Option]:
    """One option per recipe param; a flag pair for a bool."""
    return [_param_option(name, param) for name, param in params.items()]


def _param_option(name: str, param: Param) -> click.Option:
    flag = f"--{name.replace('_', '-')}"
    shown = "" if param.default in (None, "") else f" [default: {param.default}]"
    text = f"{param.help}{shown}{' [required]' if param.required else ''}"
    if param.type == "bool":
        return click.Option([f"{flag}/--no-{flag[2:]}", name], default=None, help=text)
    kind = click.Choice(param.choices) if param.choices else PLAIN[{"int": int, "float": float}.get(param.type, str)]
    return click.Option([flag, name], type=kind, default=None, help=text)


def _option(name: str, field: FieldInfo) -> click.Option:
    flag = f"--{name.replace('_', '-')}"
    default = field.get_default(call_default_factory=True)
    shown = ", ".join(map(str, default)) if isinstance(default, tuple) else default
    text = f"{field.description or ''} [default: {shown}]" if shown not in (None, "") else field.description
    annotation = field.annotation
    if annotation is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}", name], default=None, help=text)
    if get_origin(annotation) is tuple:
        return click.Option([flag, name], multiple=True, type=_kind(get_args(annotation)[0]), help=f"{text} (repeat)")
    return click.Option([flag, name], type=_kind(annotation), default=None, help=text)


def _kind(annotation: Any) -> click.ParamType[Any]:
    choices = _choices(annotation)
    if choices:
        return click.Choice(choices)
    if get_origin(annotation) in (Union, UnionType):
        return next((PLAIN[a] for a in get_args(annotation) if a in PLAIN), click.STRING)
    return PLAIN.get(annotation, click.STRING)


def _choices(annotation: Any) -> Sequence[str]:
    """All values of a Literal, or of a union of Literals."""
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    if get_origin(annotation) in (Union, UnionType):
        nested = [_choices(part) for part in get_args(annotation)]
        return [value for part in nested for value in part] if all(nested) else []
    return []
