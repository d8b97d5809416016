"""The layers of an encoder: where their weights are, and in which order they are computed.

The two differ where layers share weights: ALBERT has one set of weights (or a few, its groups) and computes it again
and again. What is cut from such a layer is cut from all that share it, and fewer layers are fewer repetitions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from edgekit.nn.families import Family, family_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = [
    "Call",
    "backbone",
    "depth",
    "encoder_layers",
    "hidden_width",
    "layer_calls",
    "layer_paths",
    "part_call",
    "shares_weights",
]


class Call(NamedTuple):
    """One computation of a layer: the path of its module, which of the module's `turns` in a forward pass it is."""

    path: str
    turn: int = 0
    turns: int = 1


def backbone(model: PreTrainedModel) -> tuple[torch.nn.Module, Family]:
    """The encoder inside a classifier, and its family."""
    family = family_of(model.config.model_type)
    return model.get_submodule(family.backbone), family


def layer_paths(model: PreTrainedModel) -> list[str]:
    """Path from the model of each layer that has weights of its own."""
    _, family = backbone(model)
    paths = _entries(model, f"{family.backbone}.{family.layers}")
    if not family.group_layers:
        return paths
    return [path for group in paths for path in _entries(model, f"{group}.{family.group_layers}")]


def encoder_layers(model: PreTrainedModel) -> list[torch.nn.Module]:
    """The layers that have weights of their own."""
    return [model.get_submodule(path) for path in layer_paths(model)]


def depth(model: PreTrainedModel) -> int:
    """How many layers are computed."""
    return int(getattr(model.config, backbone(model)[1].config_layers))


def shares_weights(model: PreTrainedModel) -> bool:
    """Whether a layer's weights are computed more than once."""
    return depth(model) > len(encoder_layers(model))


def hidden_width(model: PreTrainedModel) -> int:
    """Width of the hidden states."""
    return int(getattr(model.config, backbone(model)[1].config_hidden))


def layer_calls(model: PreTrainedModel) -> list[Call]:
    """The layers in the order they are computed, `depth(model)` of them.

    Source of the order: transformers, `AlbertTransformer.forward`.
    """
    _, family = backbone(model)
    if not family.group_layers:
        return [Call(path) for path in layer_paths(model)]
    groups = _entries(model, f"{family.backbone}.{family.layers}")
    order = [int(i / (depth(model) / len(groups))) for i in range(depth(model))]
    last = [_entries(model, f"{group}.{family.group_layers}")[-1] for group in groups]
    return [Call(last[group], order[:i].count(group), order.count(group)) for i, group in enumerate(order)]


def part_call(model: PreTrainedModel, layer: Call, name: str) -> Call:
    """The computation of a layer's part for the text, by its field name in `Family`.

    DeBERTa's queries and keys may be made a second time, of positions (transformers, `DisentangledSelfAttention`).
    """
    config: Any = model.config
    again = getattr(config, "relative_attention", False) and getattr(config, "share_att_key", False)
    turns = 2 if again and name in ("query", "key") else 1
    path = f"{layer.path}.{getattr(backbone(model)[1], name)}"
    return Call(path, layer.turn * turns, layer.turns * turns)


def _entries(model: PreTrainedModel, path: str) -> list[str]:
    """Paths of what a list of modules holds."""
    return [f"{path}.{name}" for name, _ in model.get_submodule(path).named_children()]
