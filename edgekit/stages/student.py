"""A student of a given shape, initialized from a larger model as far as the shapes allow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from edgekit.artifact import Artifact, Facts
from edgekit.errors import StageError
from edgekit.stages.base import Config, Context, Outcome, kind_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from edgekit.nn.families import Family

__all__ = ["VERSION", "Student", "student"]

VERSION = 2


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
        description="source: embeddings projected, layers taken evenly and cut; random: fresh weights.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of fresh weights.")


def student(source: Artifact, config: Student, out: Path, context: Context) -> Outcome:
    """Build the student as a plain Transformers folder of the source's architecture.

    With `init="source"` the word and position embeddings are projected to the new width by the same truncated SVD (the
    best linear map in least squares), layers are taken evenly spaced, and each matrix keeps its leading rows and
    columns where only heads or neurons get fewer. Raises StageError for a shape that is no smaller or cannot be.
    """
    import torch

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
    set_pooling(fresh, pooling_of(model))
    carried = _carry_over(model, fresh) if config.init == "source" else ()
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
    return shape | dict.fromkeys(family.config_widths, shape[family.config_hidden])


def _layer_types(model: PreTrainedModel, shape: dict[str, int]) -> dict[str, list[str]]:
    """Which layers look at near tokens alone, where the config lists that, of the layers that are carried over."""
    from edgekit.nn.layers import backbone

    types = getattr(model.config, "layer_types", None)
    if not types:
        return {}
    origin = _origin(len(types), shape[backbone(model)[1].config_layers])
    return {"layer_types": [types[i] for i in origin]}


def _origin(count: int, kept: int) -> list[int]:
    """For each of a student's `kept` layers, which of `count` layers it starts from: spread, the last is the last."""
    return [round((i + 1) * count / kept) - 1 for i in range(kept)]


def _carry_over(model: PreTrainedModel, fresh: PreTrainedModel) -> tuple[str, ...]:
    """Copy what fits into the student's weights; returns the names of the tensors that were set."""
    import torch

    from edgekit.nn.families import family_of

    family = family_of(model.config.model_type)
    old, new = model.state_dict(), fresh.state_dict()
    basis = _basis(_inputs(old, family), _inputs(new, family).shape[1])
    prefix = f"{family.backbone}.{family.layers}."
    count, kept = (len(list(m.get_submodule(prefix[:-1]).children())) for m in (model, fresh))
    origin = _origin(count, kept)
    blocks = {f".{family.ffn_up}.": 2 if family.gated else 1, f".{family.query}.": 3 if family.fused else 1}
    carried = []
    with torch.no_grad():
        for name, tensor in new.items():
            source = _origin_name(name, prefix, origin)
            if source not in old:
                continue
            fitted = _fit(old[source], tensor, basis, next((n for part, n in blocks.items() if part in name), 1))
            if fitted is not None:
                tensor.copy_(fitted)
                carried.append(name)
    return tuple(carried)


def _inputs(weights: dict[str, torch.Tensor], family: Family) -> torch.Tensor:
    """What writes the residual stream first, (rows, hidden): a row for each token, or each pixel of a patch."""
    if not family.pictures:
        return weights[f"{family.backbone}.{family.word_embeddings}.weight"]
    return weights[f"{family.backbone}.{family.patches}.weight"].flatten(1).T


def _origin_name(name: str, prefix: str, origin: list[int]) -> str:
    if not name.startswith(prefix):
        return name
    index, _, rest = name.removeprefix(prefix).partition(".")
    return f"{prefix}{origin[int(index)]}.{rest}"


def _basis(words: torch.Tensor, width: int) -> torch.Tensor | None:
    """(old width, new width): leading right singular vectors of the word embeddings; None where their width stays."""
    import torch

    if width == words.shape[1]:
        return None
    _, _, right = torch.linalg.svd(words.float().T @ words.float())
    basis: torch.Tensor = right[:width].T.contiguous()
    return basis


def _fit(old: torch.Tensor, new: torch.Tensor, basis: torch.Tensor | None, blocks: int = 1) -> torch.Tensor | None:
    """The old tensor in the new shape: as it is, projected to the new width, or cut (each of its `blocks` of rows by
    itself); None where neither makes sense."""
    import torch

    if old.shape == new.shape:
        return old
    if basis is None:
        if any(a > b for a, b in zip(new.shape, old.shape, strict=True)):
            return None
        rows = new.shape[0] // blocks
        cut = tuple(slice(0, size) for size in (rows, *new.shape[1:]))
        fitted: torch.Tensor = old.reshape(blocks, -1, *old.shape[1:])[(slice(None), *cut)].flatten(0, 1)
        return fitted
    if old.dim() > 2:  # of pictures: the patches' convolution, the positions and the learned tokens
        axis = 0 if old.dim() == 4 else old.dim() - 1
        narrowed: torch.Tensor = torch.tensordot(old, basis, dims=([axis], [0])).movedim(-1, axis)
        return narrowed
    if old.dim() == 2 and old.shape[1] == basis.shape[0] and new.shape == (old.shape[0], basis.shape[1]):
        projected: torch.Tensor = old @ basis  # an embedding table
        return projected
    return None


def _count(model: PreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
