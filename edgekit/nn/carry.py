"""A smaller model's first weights, taken from a larger one of its family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgekit.nn.families import Family, family_of
from edgekit.nn.layers import backbone

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["carry_over", "origin"]

PASSES, ROWS, LENGTH = 8, 32, 32  # forward passes, inputs of each, and their tokens
POSITIONS_BEFORE = 2  # RoBERTa counts from 2


def origin(count: int, kept: int) -> list[int]:
    """For each of a student's `kept` layers, which of `count` layers it starts from: spread, the last is the last."""
    return [round((i + 1) * count / kept) - 1 for i in range(kept)]


def carry_over(model: PreTrainedModel, fresh: PreTrainedModel) -> tuple[str, ...]:
    """Set the weights of `fresh`, in place, from those of `model`; returns the names of the tensors that were set.

    Layers are evenly spread; of heads and neurons the first stay. A narrower hidden state is the old one along its
    principal directions: what reads it, writes it or scales it is projected there. That is near, not equal: norms take
    their mean and variance over fewer numbers.
    """
    import torch

    family = family_of(model.config.model_type)
    old, new = model.state_dict(), fresh.state_dict()
    prefix = f"{family.backbone}.{family.layers}."
    count, kept = (len(list(m.get_submodule(prefix[:-1]).children())) for m in (model, fresh))
    widths = [int(getattr(m.config, family.config_hidden)) for m in (model, fresh)]
    basis = _basis(model, widths[1]) if widths[0] != widths[1] else None
    carried = []
    with torch.no_grad():
        for name, tensor in new.items():
            source = _source_name(name, prefix, origin(count, kept))
            fitted = _fit(name, old[source], tensor, basis, family) if source in old else None
            if fitted is not None:
                tensor.copy_(fitted)
                carried.append(name)
    return tuple(carried)


def _source_name(name: str, prefix: str, origin: list[int]) -> str:
    if not name.startswith(prefix):
        return name
    index, _, rest = name.removeprefix(prefix).partition(".")
    return f"{prefix}{origin[int(index)]}.{rest}"


def _basis(model: PreTrainedModel, narrower: int) -> torch.Tensor:
    """(width, narrower), orthonormal: principal directions of the hidden states between all layers, each with the same
    weight. Random tokens or pixels serve: what training made of the weights shows in them, and no data are needed."""
    import torch

    encoder, _ = backbone(model)
    states = []
    with torch.no_grad():
        for seed in range(PASSES):
            found = encoder(**_random_inputs(model, seed), output_hidden_states=True).hidden_states
            states.append([one.flatten(0, 1).double() for one in found])
    total = torch.zeros(2 * states[0][0].shape[-1:], dtype=torch.float64, device=model.device)
    for layer in zip(*states, strict=True):
        rows = torch.cat(layer)  # not centred: what is added to every token has to be kept too
        total += rows.T @ rows / rows.square().sum()
    basis: torch.Tensor = torch.linalg.svd(total)[0][:, :narrower].contiguous()
    return basis


def _random_inputs(model: PreTrainedModel, seed: int) -> dict[str, torch.Tensor]:
    import torch

    config, rng = model.config, torch.Generator().manual_seed(seed)
    if family_of(config.model_type).pictures:
        pixels = torch.randn(ROWS, config.num_channels, config.image_size, config.image_size, generator=rng)
        return {"pixel_values": pixels.to(model.device)}
    length = min(LENGTH, config.max_position_embeddings - POSITIONS_BEFORE)
    tokens = torch.randint(config.vocab_size, (ROWS, length), generator=rng)
    return {"input_ids": tokens.to(model.device)}


def _fit(
    name: str, old: torch.Tensor, new: torch.Tensor, basis: torch.Tensor | None, family: Family
) -> torch.Tensor | None:
    """The old tensor in the new shape; None where it cannot be: its axes along the hidden state projected, the others
    cut, in each of its blocks of rows by itself."""
    import torch

    inner = _inner_axis(name, family)
    fitted = old
    if basis is not None:
        of_norm = old.dim() == 1 and name.endswith(".weight")  # gains: their mean, each as far as the direction has it
        directions = basis.to(old).square() if of_norm else basis.to(old)
        for axis, sizes in enumerate(zip(old.shape, new.shape, strict=True)):
            if axis != inner and sizes == basis.shape:
                fitted = torch.tensordot(fitted, directions, dims=([axis], [0])).movedim(-1, axis)
    if any(a < b for a, b in zip(fitted.shape, new.shape, strict=True)):
        return None
    blocks = _blocks(name, family)
    rows = (blocks, fitted.shape[0] // blocks, *fitted.shape[1:])
    cut = (slice(None), *(slice(0, size) for size in (new.shape[0] // blocks, *new.shape[1:])))
    left: torch.Tensor = fitted.reshape(rows)[cut].flatten(0, 1)
    return left


def _inner_axis(name: str, family: Family) -> int | None:
    """The axis of heads or neurons, of what has one; it may be as long as the hidden state is wide."""
    if _is_one(name, "", (family.query, family.key, family.value, family.ffn_up, *family.position_projections)):
        return 0
    return 1 if _is_one(name, "weight", (family.attention_output, family.ffn_down)) else None


def _blocks(name: str, family: Family) -> int:
    """How many matrices, one above the other, a tensor holds."""
    if family.fused and _is_one(name, "", (family.query,)):
        return 3
    return 2 if family.gated and _is_one(name, "", (family.ffn_up,)) else 1


def _is_one(name: str, leaf: str, parts: Sequence[str | None]) -> bool:
    """Whether a tensor is the `leaf` (any: "") of one of these parts of the model."""
    module, _, last = name.rpartition(".")
    return last.startswith(leaf) and any(part and f".{module}".endswith(f".{part}") for part in parts)
