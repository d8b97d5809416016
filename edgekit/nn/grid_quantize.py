"""A decoder's matrices on grids: rounded to nearest, or by GPTQ, with scales that the activations choose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from edgekit.nn.decoder_families import decoder_family
from edgekit.nn.gptq_int4 import round_by_gptq
from edgekit.nn.grid import Grid, GridKind, find_scales, grid_of, integers, values_of
from edgekit.nn.hqq_int4 import round_by_hqq
from edgekit.nn.layerwise import layer_by_layer
from edgekit.progress import Progress

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = [
    "HEAD",
    "Quantized",
    "Rounding",
    "quantize_layers",
    "quantize_matrix",
    "quantize_table",
    "renamed",
    "weight_of",
]

Rounding = Literal["rtn", "gptq", "hqq"]
HEAD = "lm_head"


@dataclass(frozen=True)
class Quantized:
    """`error`: the squared error of the module's outputs against their squares (of its weights, where no activations
    were looked at)."""

    name: str
    grid: Grid
    error: float


def quantize_layers(
    model: PreTrainedModel,
    batches: Sequence[torch.Tensor],
    kinds: Mapping[str, GridKind],
    rounding: Rounding,
    progress: Progress | None = None,
) -> Iterator[Quantized]:
    """Quantize in place the modules of `kinds` (module path -> grid), layer by layer; each layer's activations are
    those that the layers before it give once they are quantized.

    `batches`: token ids (batch, length); GPTQ needs some, the others do without (no activations weigh the errors then).
    The output matrix is always rounded to nearest: it is a table of tokens, read at 8 bits as a rule.
    """
    if not batches:
        for name, kind in kinds.items():
            yield quantize_matrix(model, name, kind, None, rounding)
        return
    for layer in layer_by_layer(model, batches, progress):
        for name, moments in layer.moments.items():
            if name in kinds:
                yield quantize_matrix(model, name, kinds[name], moments, "rtn" if name == HEAD else rounding)


def quantize_matrix(
    model: PreTrainedModel, name: str, kind: GridKind, moments: torch.Tensor | None, rounding: Rounding
) -> Quantized:
    """Quantize one module in place. `moments` (in, in): E[x x^T] of its inputs; GPTQ needs them. HQQ moves zero points:
    a symmetric grid is rounded to nearest."""
    weight = weight_of(model, name)
    before = weight.detach().float()
    if rounding == "gptq" and moments is not None:
        codes, scales, zeros = round_by_gptq(before, moments, kind)
    elif rounding == "hqq" and not kind.symmetric:
        codes, scales, zeros = round_by_hqq(before, kind)
    else:
        scales, zeros = find_scales(before, kind, None if moments is None else moments.diagonal())
        codes = integers(before, scales, zeros, kind)
    after = values_of(codes, scales, zeros, kind)
    error = _relative_error(before, after, moments)
    weight.data.copy_(after)
    return Quantized(name, grid_of(codes, scales, zeros, kind), error)


def quantize_table(model: PreTrainedModel, name: str, kind: GridKind) -> Quantized:
    """Quantize in place a table that is only looked up: every channel counts alike."""
    return quantize_matrix(model, name, kind, None, "rtn")


def renamed(item: Quantized, name: str) -> Quantized:
    """The same under another name: a tied output matrix is stored as the embedding table."""
    return replace(item, name=name)


def weight_of(model: PreTrainedModel, name: str) -> torch.Tensor:
    """The weight of the module at path `name`, as (out, in)."""
    family = decoder_family(model.config.model_type)
    weight: torch.Tensor = model.get_submodule(name).weight
    return weight.T if family.inputs_first and name.startswith(f"{family.layers}.") else weight


def _relative_error(before: torch.Tensor, after: torch.Tensor, moments: torch.Tensor | None) -> float:
    """tr(D M D^T) / tr(W M W^T) with D = W - W'."""
    gap = before - after
    if moments is None:
        return float(gap.square().sum() / before.square().sum().clamp_min(1e-30))
    top, bottom = ((gap @ moments) * gap).sum(), ((before @ moments) * before).sum()
    return float(top / bottom.clamp_min(1e-30))
