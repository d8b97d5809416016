"""The sizes of a decoder: read off its config, written back to it, counted in parameters, rounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, cast

from edgekit.errors import StageError
from edgekit.nn.decoder_families import Axis, decoder_family, split_layer, tensor_axes

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = [
    "BLOCK",
    "ROW",
    "Sizes",
    "inexpressible",
    "parameters",
    "renumbered",
    "sizes_of",
    "smaller_config",
    "unit_of",
]

ROW = 256  # a K-quant packs rows of whole 256s
BLOCK = 32  # Q4_0, Q8_0 and block-wise int4 in ONNX pack 32s


@dataclass(frozen=True)
class Sizes:
    """`groups` of one key-value head and `shared` query heads; `head` is the head size."""

    layers: int
    hidden: int
    groups: int
    shared: int
    head: int
    ffn: int
    vocabulary: int

    def axis(self, axis: Axis) -> int:
        """Length of an axis."""
        widths = {"query": self.groups * self.shared * self.head, "kv": self.groups * self.head}
        return widths[axis] if axis in widths else cast("int", getattr(self, axis))


def sizes_of(config: PreTrainedConfig) -> Sizes:
    """The sizes that a config says."""
    family = decoder_family(config.model_type)
    heads, hidden = config.num_attention_heads, config.hidden_size
    groups = getattr(config, "num_key_value_heads", None) or heads
    return Sizes(
        layers=config.num_hidden_layers,
        hidden=hidden,
        groups=groups,
        shared=heads // groups,
        head=getattr(config, "head_dim", None) or hidden // heads,
        ffn=getattr(config, family.ffn_key) or 4 * hidden,
        vocabulary=config.vocab_size,
    )


def smaller_config(
    config: PreTrainedConfig, sizes: Sizes, layers: Sequence[int], ids: Mapping[int, int] | None = None
) -> PreTrainedConfig:
    """The config of `sizes`, of whose layers `layers` (old numbers) are left; `ids`: a token's old id -> the new one.

    Raises StageError where config.json has no words for the sizes.
    """
    from huggingface_hub.errors import StrictDataclassError

    family = decoder_family(config.model_type)
    old = sizes_of(config)
    if family.fixed_hidden and (sizes.hidden, sizes.groups) != (old.hidden, old.groups):
        raise StageError(f"{config.model_type}: neither heads nor hidden width can be removed: {family.fixed_hidden}")
    if getattr(config, "scale_attn_by_inverse_layer_idx", False) and sizes.layers != old.layers:
        raise StageError("layers cannot be removed: the model scales attention by the number of the layer")
    found = config.to_dict() | {family.ffn_key: sizes.ffn, "vocab_size": sizes.vocabulary}
    found |= {} if ids is None else renumbered(found, ids)
    found[config.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = sizes.layers
    if found.get("layer_types"):
        found["layer_types"] = [found["layer_types"][i] for i in layers]
    if not family.fixed_hidden:
        found |= {
            "hidden_size": sizes.hidden,
            "num_key_value_heads": sizes.groups,
            "num_attention_heads": sizes.groups * sizes.shared,
            "head_dim": sizes.head,
        }
    try:
        made = type(config).from_dict(found)
    except (StrictDataclassError, ValueError) as error:
        raise StageError(f"config.json cannot say these sizes: {str(error).splitlines()[-1].strip()}") from None
    made._attn_implementation = config._attn_implementation
    return cast("PreTrainedConfig", made)


def renumbered(settings: Mapping[str, Any], ids: Mapping[int, int]) -> dict[str, Any]:
    """The `*_token_id` settings (an id, a list of ids, or None) with new ids; those of tokens that are gone are left
    out."""

    def new(value: Any) -> Any:
        return [ids[i] for i in value if i in ids] if isinstance(value, list) else ids.get(value)

    return {key: new(value) for key, value in settings.items() if key.endswith("_token_id")}


def inexpressible(config: PreTrainedConfig, sizes: Sizes) -> str:
    """Why config.json cannot say `sizes`; "" where it can."""
    try:
        smaller_config(config, sizes, range(sizes.layers))
    except StageError as error:
        return error.what
    return ""


def parameters(model: PreTrainedModel, sizes: Sizes) -> int:
    """Parameters of the model if it had those sizes."""
    family = decoder_family(model.config.model_type)
    total = 0
    for name, tensor in model.named_parameters():  # tied ones once
        layer, _ = split_layer(family, name)
        if layer:
            continue  # every layer has the shapes of the first
        axes = tensor_axes(family, name)
        shape = [sum(sizes.axis(axis) for axis in joined) for joined in axes] + list(tensor.shape[len(axes) :])
        total += prod(shape) * (1 if layer is None else sizes.layers)
    return total


def unit_of(size: int, round_to: int) -> int:
    """What a smaller width must be a multiple of: `round_to`, or (0) as K-quants need it where the width is above 256,
    as 32-blocks need it where it is above 32, and 1 below."""
    if round_to:
        return round_to
    return ROW if size > ROW else BLOCK if size > BLOCK else 1
