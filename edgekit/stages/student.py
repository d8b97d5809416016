"""A student of a given shape, initialized from a larger model as far as the shapes allow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from edgekit.artifact import Artifact, Facts
from edgekit.errors import StageError
from edgekit.stages.base import Config, Context, Outcome, kind_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["VERSION", "Student", "student"]

VERSION = 3


class Student(Config):
    """The shape; 0 keeps the source's value."""

    layers: int = Field(default=0, ge=0, description="Transformer layers; 0 keeps the source's.")
    hidden: int = Field(default=0, ge=0, description="Hidden size; 0 keeps the source's.")
    heads: int = Field(
        default=0, ge=0, description="Attention heads; must divide the hidden size. 0 keeps the source's."
    )
    ffn: int = Field(default=0, ge=0, description="FFN width; 0 keeps the source's.")
    init: Literal["source", "random"] = Field(
        default="source",
        description="source: layers taken evenly and cut, a narrower hidden state projected; random: fresh weights.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of fresh weights.")


def student(source: Artifact, config: Student, out: Path, context: Context) -> Outcome:
    """Build the student as a plain Transformers folder of the source's architecture.

    With `init="source"` its weights are the source's, cut and projected as `nn.carry` says. Raises StageError for a
    shape that is no smaller or cannot be.
    """
    import torch

    from edgekit.nn.carry import carry_over
    from edgekit.nn.embedder import pooling_of, set_pooling
    from edgekit.nn.families import family_of
    from edgekit.nn.layers import depth
    from edgekit.nn.load import load_classifier, model_class, read_edits, save_model

    if not read_edits(source.path).empty:
        raise StageError("the source has been cut already", hint="make the student from the model before pruning")
    kind = kind_of(source, context)
    model = load_classifier(source.path, kind=kind)
    family = family_of(model.config.model_type)
    shape = _shape(model, config)
    smaller = type(model.config).from_dict({**model.config.to_dict(), **shape, **_layer_types(model, shape)})
    torch.manual_seed(config.seed)
    fresh = model_class(kind).from_config(smaller).eval()
    if config.init == "source":
        _check_parts(model, fresh)
    set_pooling(fresh, pooling_of(model))
    carried = carry_over(model, fresh) if config.init == "source" else ()
    before, after = _count(model), _count(fresh)
    if after > before or (after == before and config.layers in (0, depth(model))):
        raise StageError(f"the student has {after:,} parameters, its source {before:,}", hint="give a smaller shape")
    save_model(fresh, out, tokenizer_from=source.path)
    names = (family.config_layers, family.config_hidden, family.config_heads, family.config_ffn)
    words = ", ".join(f"{name} {getattr(model.config, name)} -> {getattr(smaller, name)}" for name in names)
    facts = Facts(
        summary=f"{words}; {before / 1e6:.1f}M -> {after / 1e6:.1f}M parameters",
        touched=carried,
        numbers={"parameters_before": before, "parameters_after": after, "tensors_carried_over": len(carried)},
    )
    return Outcome("hf", facts, source.task)


def _shape(model: PreTrainedModel, config: Student) -> dict[str, int]:
    from edgekit.nn.families import family_of

    family = family_of(model.config.model_type)
    wanted = {
        family.config_layers: config.layers,
        family.config_hidden: config.hidden,
        family.config_heads: config.heads,
        family.config_ffn: config.ffn,
    }
    shape = {name: value or int(getattr(model.config, name)) for name, value in wanted.items()}
    if shape[family.config_hidden] % shape[family.config_heads]:
        raise StageError(
            f"hidden size {shape[family.config_hidden]} is not a multiple of {shape[family.config_heads]} heads",
            hint="choose heads that divide hidden",
        )
    if shape[family.config_layers] > int(getattr(model.config, family.config_layers)):
        raise StageError("a student cannot have more layers than its source")
    return shape | dict.fromkeys(family.widths(model.config.to_dict()), shape[family.config_hidden])


def _check_parts(model: PreTrainedModel, fresh: PreTrainedModel) -> None:
    """Raises StageError where the source computes something that a model of the student's shape has not: ELECTRA's
    projection of its tokens, where the hidden size is the tokens' own width."""
    from edgekit.nn.families import family_of

    layers = f".{family_of(model.config.model_type).layers}."
    outside = [name for name in model.state_dict() if layers not in name]
    if lost := sorted(set(outside) - fresh.state_dict().keys()):
        raise StageError(f"a student of this hidden size has no {lost[0]}", hint="choose another hidden size")


def _layer_types(model: PreTrainedModel, shape: dict[str, int]) -> dict[str, list[str]]:
    """Which layers look at near tokens alone, where the config lists that, of the layers that are carried over."""
    from edgekit.nn.carry import origin
    from edgekit.nn.layers import backbone

    types = getattr(model.config, "layer_types", None)
    if not types:
        return {}
    taken = origin(len(types), shape[backbone(model)[1].config_layers])
    return {"layer_types": [types[i] for i in taken]}


def _count(model: PreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
