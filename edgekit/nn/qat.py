"""Quantization-aware training: a model computes with the numbers that its int8 file will have, and learns around them.

Rounding has no gradient, so the gradient goes straight through it (Bengio et al. 2013; for integer inference Jacob et
al., arXiv 1712.05877). The grids are those of `edgekit quantize --method int8-dynamic` on ONNX: weights symmetric by
output channel in 7 of 8 bits, what flows into a product 8 bits with a zero point, by example; tables of
`onnx_embedding`. Weights stay float: the file rounds them once more, to the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal

from edgekit.errors import StageError
from edgekit.nn.layers import backbone

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from edgekit.nn.settings import ClassifierTraining

__all__ = ["MIDDLE", "Tables", "int4_block", "rounded", "rounded_activations", "rounded_rows", "rounded_weights"]

Tables = Literal["keep", "int8", "int4"]
WEIGHT_STEPS = 64  # from zero to a channel's largest weight
TINY = 1e-12
BLOCKS = (8, 32)  # columns of an int4 row with one scale, at least and at most
MIDDLE = 8  # of the 16 values that four bits hold


@contextmanager
def rounded(model: PreTrainedModel, settings: ClassifierTraining) -> Iterator[None]:
    """Inside, where `settings` ask for it, every linear layer of `model` computes with rounded weights and inputs, and
    token embeddings are looked up in fewer bits; parameters and their names stay as they are.

    Raises StageError for int4 rows that are no whole blocks.
    """
    from torch import nn

    if settings.qat == "off":
        yield
        return
    tables = settings.qat_embeddings
    found: dict[nn.Module, Callable[[torch.Tensor], torch.Tensor]] = {
        module: partial(_linear, module) for module in model.modules() if isinstance(module, nn.Linear)
    }
    if tables != "keep" and (table := _table(model)) is not None:
        if tables == "int4":
            int4_block(table.embedding_dim)  # refused now, not in the first batch
        found[table] = partial(_embedding, table, tables)
    for module, forward in found.items():
        module.forward = forward
    try:
        yield
    finally:
        for module in found:
            del module.forward


def rounded_weights(weight: torch.Tensor) -> torch.Tensor:
    """(out, in), each output channel on its own grid."""
    scale = weight.detach().abs().amax(dim=1, keepdim=True).clamp_min(TINY) / WEIGHT_STEPS
    return _through(weight, (weight.detach() / scale).round() * scale)


def rounded_activations(x: torch.Tensor) -> torch.Tensor:
    """(batch, ..., in), each example on its own grid of 256 values, 0 among them."""
    exact = x.detach().float()
    inner = tuple(range(1, exact.ndim))
    low, high = exact.amin(dim=inner, keepdim=True).clamp_max(0), exact.amax(dim=inner, keepdim=True).clamp_min(0)
    scale = (high - low).clamp_min(TINY) / 255
    zero = (-low / scale).round()
    return _through(x, (((exact / scale).round() + zero).clamp(0, 255) - zero) * scale)


def int4_block(width: int) -> int:
    """How many columns of an int4 row share a scale: 32, or the most below into which `width` divides evenly (26 of
    TinyBERT's 312). A byte holds two of a block, so it is an even number. Raises StageError where all are below 8."""
    least, most = BLOCKS
    found = [size for size in range(most, least - 1, -2) if width % size == 0]
    if not found:
        what = f"embeddings of {width} columns do not divide into int4 blocks of {least} to {most}, an even number"
        raise StageError(what, hint="use int8 embeddings")
    return found[0]


def rounded_rows(rows: torch.Tensor, tables: Tables) -> torch.Tensor:
    """(..., width) of an embedding table: int8 has a scale by row, int4 one for each block (`int4_block`)."""
    import torch

    if tables == "int8":
        scale = rows.detach().abs().amax(dim=-1, keepdim=True).clamp_min(TINY) / 127
        return _through(rows, (rows.detach() / scale).round() * scale)
    blocks = rows.detach().reshape(*rows.shape[:-1], -1, int4_block(rows.shape[-1]))
    extreme = blocks.gather(-1, blocks.abs().argmax(dim=-1, keepdim=True))
    scale = torch.where(extreme == 0, torch.ones_like(extreme), extreme / -MIDDLE)
    return _through(rows, ((blocks / scale).round().clamp(-MIDDLE, MIDDLE - 1) * scale).flatten(-2))


def _through(exact: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
    """The value of `rounded` with the gradient of `exact`."""
    return exact + (rounded.to(exact.dtype) - exact).detach()


def _linear(module: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
    from torch.nn import functional

    return functional.linear(rounded_activations(x), rounded_weights(module.weight), module.bias)


def _embedding(module: torch.nn.Embedding, tables: Tables, ids: torch.Tensor) -> torch.Tensor:
    from torch.nn import functional

    return rounded_rows(functional.embedding(ids, module.weight, module.padding_idx), tables)


def _table(model: PreTrainedModel) -> torch.nn.Embedding | None:
    """The token embeddings; of a factorized table the one that is looked up; None of a model of pictures."""
    from torch import nn

    root, family = backbone(model)
    if family.word_embeddings is None:
        return None
    found = root.get_submodule(family.word_embeddings)
    return next(module for module in found.modules() if isinstance(module, nn.Embedding))
