"""Resizing a model in place: heads, FFN neurons, layers, low-rank layers, and rebuilding all that from `Edits`.

What was edited is read off the model itself (`settle`), so edits of several stages compose without being carried along.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from edgekit.errors import ModelError
from edgekit.nn.head_bias import pick_columns
from edgekit.nn.layers import backbone, encoder_layers, layer_paths

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from edgekit.nn.load import Edits

__all__ = [
    "drop_layers",
    "ffn_width",
    "head_count",
    "head_size",
    "merge_low_rank",
    "part",
    "part_path",
    "prune_heads",
    "rebuild",
    "resize_ffn",
    "set_low_rank",
    "settle",
]


def part_path(model: PreTrainedModel, layer: int, name: str) -> str:
    """Path from the model of a layer's part, by its field name in `Family` ("query", "ffn_up", ...)."""
    return f"{layer_paths(model)[layer]}.{getattr(backbone(model)[1], name)}"


def part(model: PreTrainedModel, layer: int, name: str) -> nn.Module:
    """A layer's part, by its field name in `Family`."""
    return cast("nn.Module", model.get_submodule(part_path(model, layer, name)))


def head_size(model: PreTrainedModel) -> int:
    """Width of one attention head; surgery never changes it."""
    return cast(int, getattr(part(model, 0, "attention"), backbone(model)[1].head_size_attribute))


def head_count(model: PreTrainedModel, layer: int) -> int:
    """Heads that the layer has now."""
    width = cast(int, part(model, layer, "query").out_features) // head_size(model)
    return width // 3 if backbone(model)[1].fused else width


def ffn_width(model: PreTrainedModel, layer: int) -> int:
    """FFN neurons that the layer has now."""
    width = cast(int, part(model, layer, "ffn_up").out_features)
    return width // 2 if backbone(model)[1].gated else width


def resize_ffn(model: PreTrainedModel, layer: int, keep: torch.Tensor) -> None:
    """Keep the FFN neurons `keep` (k,) int64 of one layer. Low-rank layers stay low rank."""
    rows = _in_each(keep, ffn_width(model, layer), 2) if backbone(model)[1].gated else keep
    _keep_outputs(part(model, layer, "ffn_up"), rows)
    _keep_inputs(part(model, layer, "ffn_down"), keep)


def head_columns(heads: torch.Tensor, size: int) -> torch.Tensor:
    """Columns of the attention output that belong to `heads` (k,): (k * size,)."""
    import torch

    return (heads[:, None] * size + torch.arange(size, device=heads.device)).flatten()


def prune_heads(model: PreTrainedModel, layer: int, keep: torch.Tensor) -> None:
    """Keep the attention heads `keep` (k,) int64, at least one, of one layer. Low-rank layers stay low rank."""
    if not len(keep):
        raise ValueError("a layer needs at least one head")
    _, family = backbone(model)
    size, count = head_size(model), head_count(model, layer)
    columns = head_columns(keep, size)
    if family.fused:
        _keep_outputs(part(model, layer, "query"), _in_each(columns, count * size, 3))
    else:
        for name in ("query", "key", "value"):
            _keep_outputs(part(model, layer, name), columns)
    inside = encoder_layers(model)[layer]
    present = {path for path, _ in inside.named_modules()}
    for path in present & set(family.position_projections):
        _keep_outputs(inside.get_submodule(path), columns)
    _keep_inputs(part(model, layer, "attention_output"), columns)
    attention = part(model, layer, "attention")
    for name in family.head_count_attributes:
        setattr(attention, name, len(keep))
    for name in family.head_width_attributes:
        setattr(attention, name, len(keep) * size)
    if family.head_bias:
        pick_columns(attention, keep)


def drop_layers(model: PreTrainedModel, keep: Sequence[int]) -> None:
    """Keep the Transformer layers `keep`, in that order, and say so in the config.

    Of layers that share their weights only the number counts: they are computed that many times. Raises ModelError for
    fewer times than there are groups of them, or where a first layer goes that must stay.
    """
    from torch import nn

    layers = encoder_layers(model)
    root, family = backbone(model)
    if family.group_layers:
        groups = len(cast("nn.ModuleList", root.get_submodule(family.layers)))
        if len(keep) < groups:
            raise ModelError(f"{len(keep)} layers cannot be computed with {groups} groups of shared weights")
        setattr(model.config, family.config_layers, len(keep))
        return
    if family.first_layer_stays and keep[0] != 0:
        raise ModelError(f"the first layer of {model.config.model_type} has no norm of its own: it must stay the first")
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = [model.config.layer_types[i] for i in keep]
    root.set_submodule(family.layers, nn.ModuleList([layers[i] for i in keep]))
    for index, layer in enumerate(encoder_layers(model)):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                cast("Any", module).layer_idx = index
    parent: Any = root.get_submodule(family.layers.rpartition(".")[0])
    if hasattr(parent, "n_layers"):
        parent.n_layers = len(keep)
    setattr(model.config, family.config_layers, len(keep))


def set_low_rank(model: PreTrainedModel, path: str, rank: int) -> None:
    """Put an empty low-rank layer of the same outer shape at `path`.

    Raises ModelError where there is no linear layer or embedding.
    """
    from torch import nn

    from edgekit.nn.factored import LowRankEmbedding, LowRankLinear

    try:
        module = model.get_submodule(path)
    except AttributeError:
        raise ModelError(f"edits.json: the model has no module {path!r}") from None
    made: nn.Module
    if isinstance(module, nn.Linear | LowRankLinear):
        made = LowRankLinear(module.in_features, module.out_features, rank, bias=module.bias is not None)
    elif isinstance(module, nn.Embedding | LowRankEmbedding):
        made = LowRankEmbedding(module.num_embeddings, module.embedding_dim, rank, padding_idx=module.padding_idx)
    else:
        raise ModelError(f"edits.json: {path!r} is neither a linear layer nor an embedding")
    model.set_submodule(path, made.to(next(module.parameters()).device).train(module.training))


def rebuild(model: PreTrainedModel, edits: Edits) -> None:
    """Give a freshly built model the shapes that `edits` names, so that its weights can be loaded.

    Raises ModelError for edits that name a layer, module or size the model does not have.
    """
    import torch

    count = len(encoder_layers(model))
    for what, sizes, size_now, resize in (
        ("ffn", edits.ffn, ffn_width, resize_ffn),
        ("heads", edits.heads, head_count, prune_heads),
    ):
        for layer, size in sizes.items():
            if not 0 <= layer < count:
                raise ModelError(f"edits.json: {what} of layer {layer}, but the model has {count} layers")
            if not 0 < size <= size_now(model, layer):
                raise ModelError(f"edits.json: {what} of layer {layer} cannot be {size}")
            resize(model, layer, torch.arange(size))
    for path, rank in edits.low_rank.items():
        set_low_rank(model, path, rank)


def settle(model: PreTrainedModel) -> Edits:
    """Bring the config up to date with the model's shapes; return, as edits, what no config key can express."""
    from edgekit.nn.factored import LOW_RANK
    from edgekit.nn.load import Edits

    root, family = backbone(model)
    layers = range(len(encoder_layers(model)))
    widths = {layer: ffn_width(model, layer) for layer in layers}
    if len(set(widths.values())) == 1:
        setattr(model.config, family.config_ffn, widths[0])
    if family.word_embeddings:
        model.config.vocab_size = root.get_submodule(family.word_embeddings).num_embeddings
    full_width, full_heads = getattr(model.config, family.config_ffn), getattr(model.config, family.config_heads)
    heads = {layer: head_count(model, layer) for layer in layers}
    return Edits(
        heads={layer: n for layer, n in heads.items() if n != full_heads},
        ffn={layer: n for layer, n in widths.items() if n != full_width},
        low_rank={path: module.rank for path, module in model.named_modules() if isinstance(module, LOW_RANK)},
    )


def merge_low_rank(model: PreTrainedModel) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """Multiply all low-rank factors back to plain layers, in place; returns the same model and the merged paths.

    For formats that know no factored layers (GGUF). The function computed stays the same, the saving is lost.
    """
    from edgekit.nn.factored import LOW_RANK, densify

    found = {path: module for path, module in model.named_modules() if isinstance(module, LOW_RANK)}
    for path, module in found.items():
        model.set_submodule(path, densify(module).to(next(module.parameters()).device))
    return model, tuple(found)


def _in_each(rows: torch.Tensor, size: int, parts: int) -> torch.Tensor:
    """Rows (k,) of each of `parts` blocks of `size` rows: (parts * k,)."""
    import torch

    return (torch.arange(parts, device=rows.device)[:, None] * size + rows).flatten()


def _keep_outputs(module: nn.Module, keep: torch.Tensor) -> None:
    """Keep rows of a linear layer's weight and bias (of the last factor, where it has two)."""
    from edgekit.nn.factored import LowRankLinear

    linear = module.up if isinstance(module, LowRankLinear) else cast("nn.Linear", module)
    keep = keep.to(linear.weight.device)
    linear.weight.data = linear.weight.data.index_select(0, keep)
    if linear.bias is not None:
        linear.bias.data = linear.bias.data.index_select(0, keep)
    linear.out_features = len(keep)


def _keep_inputs(module: nn.Module, keep: torch.Tensor) -> None:
    """Keep columns of a linear layer's weight (of the first factor, where it has two)."""
    from edgekit.nn.factored import LowRankLinear

    linear = module.down if isinstance(module, LowRankLinear) else cast("nn.Linear", module)
    linear.weight.data = linear.weight.data.index_select(1, keep.to(linear.weight.device))
    linear.in_features = len(keep)
