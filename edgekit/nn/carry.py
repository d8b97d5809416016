"""A smaller model's first weights, taken from a larger one of its family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit.nn.families import Family, family_of
from edgekit.nn.layers import backbone, hidden_width
from edgekit.pictures import picture_shape

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["carry_over", "origin", "principal_directions"]

PASSES, ROWS, LENGTH = 8, 32, 32  # forward passes, inputs of each, and their tokens


def origin(count: int, kept: int) -> list[int]:
    """For each of a student's `kept` layers, which of `count` layers it starts from: spread, the last is the last."""
    return [round((i + 1) * count / kept) - 1 for i in range(kept)]


def carry_over(model: PreTrainedModel, fresh: PreTrainedModel) -> tuple[str, ...]:
    """Set the weights of `fresh`, in place, from those of `model`; returns the names of the tensors that were set.

    Layers are evenly spread; of heads, of each head's rows and of neurons the first stay. A narrower hidden state is
    the old one along its principal directions: what reads it, writes it or scales it is projected there. That is near,
    not equal: norms take their mean and variance over fewer numbers.
    """
    import torch

    old, new = model.state_dict(), fresh.state_dict()
    shapes = _Shapes.of(model, fresh)
    prefix = f"{shapes.family.backbone}.{shapes.family.layers}."
    taken = origin(*(len(list(m.get_submodule(prefix[:-1]).children())) for m in (model, fresh)))
    carried = []
    with torch.no_grad():
        for name, tensor in new.items():
            source = _source_name(name, prefix, taken)
            fitted = _fit(name, old[source], tensor, shapes) if source in old else None
            if fitted is not None:
                tensor.copy_(fitted)
                carried.append(name)
    return tuple(carried)


def principal_directions(model: PreTrainedModel, count: int) -> torch.Tensor:
    """(width, count), orthonormal, float64: where the hidden states between all layers lie, each layer with the same
    weight. Random tokens or pixels serve: what training made of the weights shows in them, and no data are needed."""
    import torch

    encoder, _ = backbone(model)
    moments: list[torch.Tensor] = []
    with torch.no_grad():
        for seed in range(PASSES):
            states = encoder(**_random_inputs(model, seed), output_hidden_states=True).hidden_states
            rows = [one.flatten(0, 1).double() for one in states]
            found = [one.T @ one for one in rows]  # not centred: what is added to every token has to be kept too
            moments = [a + b for a, b in zip(moments, found, strict=True)] if moments else found
    total = torch.stack([moment / moment.trace() for moment in moments]).sum(0)
    directions: torch.Tensor = torch.linalg.svd(total)[0][:, :count].contiguous()
    return directions


def _random_inputs(model: PreTrainedModel, seed: int) -> dict[str, torch.Tensor]:
    import torch

    config, rng = model.config, torch.Generator().manual_seed(seed)
    family = family_of(config.model_type)
    if family.pictures:
        pixels = torch.randn((ROWS, *picture_shape(config.to_dict())), generator=rng)
        return {"pixel_values": pixels.to(model.device, model.dtype)}
    length = min(LENGTH, config.max_position_embeddings - family.position_offset)
    tokens = torch.randint(config.vocab_size, (ROWS, length), generator=rng).to(model.device)
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


@dataclass(frozen=True)
class _Shapes:
    """What differs between the two models. `heads`: of each; `directions`: (old width, new width), where they differ;
    `units`: the classifier reads a layer of its own units, not the hidden state."""

    family: Family
    heads: tuple[int, int]
    directions: torch.Tensor | None
    units: bool

    @classmethod
    def of(cls, model: PreTrainedModel, fresh: PreTrainedModel) -> _Shapes:
        family = family_of(model.config.model_type)
        old, new = hidden_width(model), hidden_width(fresh)
        heads = tuple(int(getattr(m.config, family.config_heads)) for m in (model, fresh))
        square = [
            {name for name, weight in m.state_dict().items() if weight.shape == (width, width)}
            for m, width in ((model, old), (fresh, new))
        ]
        units = any(family.after(name) for name in square[0] & square[1])
        return cls(family, (heads[0], heads[1]), principal_directions(model, new) if old != new else None, units)


def _source_name(name: str, prefix: str, origin: list[int]) -> str:
    if not name.startswith(prefix):
        return name
    index, _, rest = name.removeprefix(prefix).partition(".")
    return f"{prefix}{origin[int(index)]}.{rest}"


def _fit(name: str, old: torch.Tensor, new: torch.Tensor, shapes: _Shapes) -> torch.Tensor | None:
    """The old tensor in the new shape: its axes along the hidden state projected, the others cut. None where it is too
    small."""
    import torch

    inner, fitted = _inner_axis(name, old, shapes), old
    if shapes.directions is not None:
        of_norm = old.dim() == 1 and name.endswith(".weight")  # gains: their mean, each as far as the direction has it
        directions = (shapes.directions.square() if of_norm else shapes.directions).to(old)
        for axis, sizes in enumerate(zip(old.shape, new.shape, strict=True)):
            if axis != inner and sizes == directions.shape:
                fitted = torch.tensordot(fitted, directions, dims=([axis], [0])).movedim(-1, axis)
    if any(a < b for a, b in zip(fitted.shape, new.shape, strict=True)):
        return None
    for axis, (before, after) in enumerate(zip(fitted.shape, new.shape, strict=True)):
        rows = _kept(name, axis, before, after, shapes) if axis == inner else torch.arange(after)
        fitted = fitted.index_select(axis, rows.to(old.device))
    return fitted


def _inner_axis(name: str, tensor: torch.Tensor, shapes: _Shapes) -> int | None:
    """The axis of heads, neurons or units, of what has one; it may be as long as the hidden state is wide."""
    family = shapes.family
    if _is_one(name, "", (*_by_head(family), family.ffn_up)):
        return 0
    if _is_one(name, "weight", (family.attention_output, family.ffn_down)):
        return 1
    if shapes.units and family.after(name):  # the layer's own rows; what comes after it reads them
        makes = tensor.dim() == 1 or tensor.shape[0] == tensor.shape[1]
        return 0 if makes else 1
    return None


def _kept(name: str, axis: int, before: int, after: int, shapes: _Shapes) -> torch.Tensor:
    """Which of the rows (or columns) along heads, neurons or units stay: of each matrix, of each head, the first."""
    import torch

    family = shapes.family
    by_head = _is_one(name, "", _by_head(family) if axis == 0 else (family.attention_output,))
    gated = family.gated and _is_one(name, "", (family.ffn_up,))
    matrices = 3 if by_head and axis == 0 and family.fused else 2 if gated else 1
    rows, wanted = torch.arange(before).view(matrices, -1), after // matrices
    old_heads, new_heads = shapes.heads
    size = wanted // new_heads
    if by_head and new_heads <= old_heads and size <= rows.shape[1] // old_heads:
        return rows.view(matrices, old_heads, -1)[:, :new_heads, :size].flatten()
    return rows[:, :wanted].flatten()


def _by_head(family: Family) -> Sequence[str]:
    return (family.query, family.key, family.value, *family.position_projections)


def _is_one(name: str, leaf: str, parts: Sequence[str]) -> bool:
    """Whether a tensor is the `leaf` (any: "") of one of these parts of the model."""
    module, _, last = name.rpartition(".")
    return last.startswith(leaf) and any(f".{module}".endswith(f".{part}") for part in parts)
