"""Exact rewrites of an exported encoder into the operators that ONNX Runtime has the fastest kernels for.

Biases of query, key and value go into the attention, which adds them while it lays out the heads; int8 products of one
attention become one operator with it; and a norm is kept apart from the residual that comes before it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from edgekit.formats.onnx_graph import add_constant, constant, drop_unread, input_at, only_reader, replace_node

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["bias_into_attention", "pack_attention", "part_norms"]

BIAS, MASK = 3, 4  # of MultiHeadAttention's inputs: query, key, value, bias, key_padding_mask, ...
SAME_SCALE = 1e-5


def bias_into_attention(model: ir.Model) -> int:
    """(x W + b) for query, key and value, each read by one attention alone: b as the attention's own. Returns how many
    attentions took them."""
    found = 0
    for attention in [n for n in model.graph if n.op_type == "MultiHeadAttention"]:
        if input_at(attention, BIAS) is not None:
            continue
        parts = [_product_and_bias(value) for value in attention.inputs[:BIAS]]
        known = [part for part in parts if part is not None]
        if len(known) < BIAS:
            continue
        biases = np.concatenate([bias for _, bias, _ in known])
        for place, (product, _, add) in enumerate(known):
            attention.replace_input_with(place, product)
            model.graph.remove(add, safe=True)
        attention.resize_inputs(max(len(attention.inputs), BIAS + 1))
        attention.replace_input_with(BIAS, add_constant(model.graph, f"{attention.outputs[0].name}.bias", biases))
        found += 1
    return found


def pack_attention(model: ir.Model, products: Collection[str]) -> list[str]:
    """Attention with its query, key and value products, all named in `products`, as `com.microsoft::Attention`, which
    multiplies by the three weights at once and has an int8 form. Returns the attentions' names.

    Only where the three read the same positions and are as wide, biases are the attention's own, scores are scaled as
    that operator does, and nothing is added to them.
    """
    import onnx_ir as ir

    found = []
    for attention in [n for n in model.graph if n.op_type == "MultiHeadAttention"]:
        alone = [value for value in attention.inputs[:BIAS] if value is not None and only_reader(value) is not None]
        parts = [value.producer() for value in alone]
        known = [p for p in parts if p is not None and p.op_type == "MatMul" and p.name in products]
        weights = [w for p in known for w in [constant(p.inputs[1])] if w is not None]
        if len(weights) < BIAS or len({p.inputs[0] for p in known}) > 1 or len({w.shape for w in weights}) > 1:
            continue
        if not _plain(attention, weights[0]):
            continue
        weight = add_constant(model.graph, f"{attention.outputs[0].name}.qkv", np.concatenate(weights, axis=1))
        inputs = [known[0].inputs[0], weight, *attention.inputs[BIAS : MASK + 1]]
        heads = {"num_heads": attention.attributes.get_int("num_heads")}
        packed = ir.node("Attention", inputs, heads, domain="com.microsoft", name=attention.name)
        replace_node(attention, packed)
        found.append(packed.name)
    drop_unread(model)
    return found


def _plain(attention: ir.Node, weight: np.ndarray) -> bool:
    """Whether an attention (its weights (input, width)) adds a bias of its own and no more, and scales as usual."""
    size = weight.shape[1] / attention.attributes.get_int("num_heads")
    scale = attention.attributes.get_float("scale", 0.0) or size**-0.5
    extra = any(value is not None for value in attention.inputs[MASK + 1 :])
    other = attention.attributes.keys() - {"num_heads", "scale"}
    biased = input_at(attention, BIAS) is not None
    return (
        biased and not extra and not other and abs(scale * size**0.5 - 1) < SAME_SCALE and len(attention.outputs) == 1
    )


def part_norms(model: ir.Model) -> int:
    """LayerNorm(x + residual) with its addition as `Sum`. Returns how many.

    ONNX Runtime makes `SkipLayerNormalization` of an Add and a norm, whatever it is asked; on x86-64 its kernel takes
    some four times as long as both (measured with 1.32: docs/design/onnx-attention.md).
    """
    found = 0
    for norm in [n for n in model.graph if n.op_type == "LayerNormalization"]:
        total = norm.inputs[0].producer()
        if total is not None and total.op_type == "Add":
            total.op_type = "Sum"
            found += 1
    return found


def _product_and_bias(value: ir.Value) -> tuple[ir.Value, np.ndarray, ir.Node] | None:
    """The product, its bias (width,), and the Add of the two that makes `value` for one reader."""
    add = value.producer()
    if add is None or add.op_type != "Add" or only_reader(value) is None:
        return None
    for place in (0, 1):
        bias, product = constant(add.inputs[place]), add.inputs[1 - place].producer()
        if bias is not None and bias.ndim == 1 and product is not None and product.op_type == "MatMul":
            return add.inputs[1 - place], bias, add
    return None
