"""Cutting a decoder down: its weights are gathered into a new model of the smaller config, so that the result is a
plain checkpoint by construction. What config.json cannot say cannot be built."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from edgekit.nn.decoder_families import Axis, DecoderFamily, decoder_family, split_layer, tensor_axes
from edgekit.nn.decoder_sizes import Sizes, renumbered, sizes_of, smaller_config

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["Keep", "indices", "keep_all", "shrink"]


@dataclass(frozen=True)
class Keep:
    """What stays: numbers (k,) int64, ascending. `groups` and `ffn` by the layer's old number; the same count in each.

    A group is one key-value head with the query heads that share it.
    """

    layers: Sequence[int]
    groups: Mapping[int, torch.Tensor]
    ffn: Mapping[int, torch.Tensor]
    hidden: torch.Tensor
    vocabulary: torch.Tensor

    def sizes(self, old: Sizes) -> Sizes:
        """The sizes of what stays of a model of the sizes `old`."""
        first = self.layers[0]
        return replace(
            old,
            layers=len(self.layers),
            groups=len(self.groups[first]),
            ffn=len(self.ffn[first]),
            hidden=len(self.hidden),
            vocabulary=len(self.vocabulary),
        )


def keep_all(sizes: Sizes) -> Keep:
    """Everything."""
    import torch

    layers = range(sizes.layers)
    return Keep(
        layers=list(layers),
        groups={i: torch.arange(sizes.groups) for i in layers},
        ffn={i: torch.arange(sizes.ffn) for i in layers},
        hidden=torch.arange(sizes.hidden),
        vocabulary=torch.arange(sizes.vocabulary),
    )


def indices(axes: Sequence[Axis], keep: Keep, sizes: Sizes, layer: int | None) -> torch.Tensor:
    """What stays of a dimension that runs along `axes`, one after the other."""
    import torch

    found, offset = [], 0
    for axis in axes:
        if axis == "hidden" or axis == "vocabulary":
            kept = getattr(keep, axis)
        else:
            assert layer is not None
            size = sizes.axis(axis) // sizes.groups
            kept = keep.ffn[layer] if axis == "ffn" else _columns(keep.groups[layer], size)
        found.append(kept + offset)
        offset += sizes.axis(axis)
    return torch.cat(found)


def _columns(groups: torch.Tensor, size: int) -> torch.Tensor:
    """Columns of `groups` (k,) that are `size` wide each: (k * size,)."""
    import torch

    return (groups[:, None] * size + torch.arange(size)).flatten()


def shrink(model: PreTrainedModel, keep: Keep, repaired: Mapping[str, torch.Tensor] | None = None) -> PreTrainedModel:
    """A new model of what stays, eval mode, same type and device; `model` is left as it is.

    `repaired`: tensors to take instead of the model's own, by name, in their old shape. Norms over the hidden width are
    scaled so that they compute what they would with the removed channels at zero (their epsilon aside).
    Raises StageError where config.json cannot say the new sizes.
    """
    family = decoder_family(model.config.model_type)
    old = sizes_of(model.config)
    new = keep.sizes(old)
    ids = {int(before): after for after, before in enumerate(keep.vocabulary)}
    config = smaller_config(model.config, new, keep.layers, ids)
    numbers = {before: after for after, before in enumerate(keep.layers)}
    weights = {}
    for name, tensor in model.state_dict().items():
        layer, rest = split_layer(family, name)
        if layer is not None and layer not in numbers:
            continue
        found = (repaired or {}).get(name, tensor)
        for dimension, axes in enumerate(tensor_axes(family, name)):
            found = found.index_select(dimension, indices(axes, keep, old, layer).to(found.device))
        renamed = name if layer is None else f"{family.layers}.{numbers[layer]}.{rest}"
        weights[renamed] = _rescaled(found, family, rest, old, new).contiguous()
    made = _built(model, config, weights)
    made.generation_config = copy.deepcopy(model.generation_config)
    made.generation_config.update(**renumbered(model.generation_config.to_dict(), ids))
    return made


def _rescaled(tensor: torch.Tensor, family: DecoderFamily, name: str, old: Sizes, new: Sizes) -> torch.Tensor:
    """A norm's weight for the new hidden width d' instead of d; any other tensor as it is.

    x / sqrt(sum x^2 / d) is x / sqrt(sum x^2 / d') times sqrt(d / d'). Where the embeddings are multiplied by sqrt(d')
    instead of sqrt(d), what is added to them must shrink alike: there both factors cancel.
    """
    module, _, kind = name.rpartition(".")
    reads = module in (*family.norms, family.final_norm)
    writes = module in family.output_norms and not family.scales_embeddings
    if old.hidden == new.hidden or kind != "weight" or not (reads or writes):
        return tensor
    gain = math.sqrt(old.hidden / new.hidden)
    return (tensor + family.norm_offset) * gain - family.norm_offset


def _built(model: PreTrainedModel, config: PreTrainedConfig, weights: dict[str, torch.Tensor]) -> PreTrainedModel:
    """A model of `config` with the weights, of the same class, type and device as `model`."""
    from transformers.initialization import no_init_weights

    with no_init_weights():
        made = type(model)(config).to(dtype=model.dtype, device=model.device)
    made.tie_weights()
    made.load_state_dict(weights)
    return cast("PreTrainedModel", made.eval())
