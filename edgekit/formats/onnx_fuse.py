"""Exact rewrites of an exported encoder into the operators that ONNX Runtime has the fastest kernels for.

Biases of query, key and value go into the attention, which adds them while it lays out the heads; int8 products of one
attention become one operator with it; and a norm is kept apart from the residual that comes before it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.formats.onnx_graph import add_constant, constant, drop_unread, maker

if TYPE_CHECKING:
    import onnx

__all__ = ["bias_into_attention", "pack_attention", "part_norms"]

BIAS, MASK = 3, 4  # of MultiHeadAttention's inputs: query, key, value, bias, key_padding_mask, ...
SAME_SCALE = 1e-5


def bias_into_attention(model: onnx.ModelProto) -> int:
    """(x W + b) for query, key and value, each read by one attention alone: b as the attention's own. Returns how many
    attentions took them."""
    graph, found = model.graph, 0
    for attention in [n for n in graph.node if n.op_type == "MultiHeadAttention"]:
        if len(attention.input) > BIAS and attention.input[BIAS]:
            continue
        parts = [_product_and_bias(graph, name) for name in attention.input[:BIAS]]
        if any(part is None for part in parts):
            continue
        known = [part for part in parts if part is not None]
        name = f"{attention.output[0]}.bias"
        add_constant(graph, name, np.concatenate([bias for _, bias, _ in known]))
        for place, (product, _, add) in enumerate(known):
            attention.input[place] = product
            graph.node.remove(add)
        _set_input(attention, BIAS, name)
        found += 1
    return found


def pack_attention(model: onnx.ModelProto, products: Collection[str]) -> list[str]:
    """Attention with its query, key and value products, all named in `products`, as `com.microsoft::Attention`, which
    multiplies by the three weights at once and has an int8 form. Returns the attentions' names.

    Only where the three read the same positions and are as wide, biases are the attention's own, scores are scaled as
    that operator does, and nothing is added to them.
    """
    from onnx import helper

    graph, found = model.graph, []
    for attention in [n for n in graph.node if n.op_type == "MultiHeadAttention"]:
        parts = [maker(graph, name) for name in attention.input[:BIAS]]
        known = [p for p in parts if p is not None and p.op_type == "MatMul" and p.name in products]
        weights = [w for p in known for w in [constant(graph, p.input[1])] if w is not None]
        values = {a.name: helper.get_attribute_value(a) for a in attention.attribute}
        if len(weights) < BIAS or len({p.input[0] for p in known}) > 1 or len({w.shape for w in weights}) > 1:
            continue
        if any(_reads(graph, name) != 1 for name in attention.input[:BIAS]) or not _plain(
            attention, values, weights[0]
        ):
            continue
        name = f"{attention.output[0]}.qkv"
        add_constant(graph, name, np.concatenate(weights, axis=1))
        inputs = [known[0].input[0], name, *attention.input[BIAS : MASK + 1]]
        heads = {"num_heads": values["num_heads"]}
        packed = helper.make_node(
            "Attention", inputs, list(attention.output), attention.name, domain="com.microsoft", **heads
        )
        graph.node.insert(list(graph.node).index(attention), packed)
        graph.node.remove(attention)
        found.append(packed.name)
    drop_unread(graph)
    return found


def _plain(attention: onnx.NodeProto, values: dict[str, Any], weight: np.ndarray) -> bool:
    """Whether an attention (its weights (input, width)) adds a bias of its own and no more, and scales as usual."""
    size = weight.shape[1] / values["num_heads"]
    scale = values.get("scale", 0.0) or size**-0.5
    extra = any(attention.input[MASK + 1 :]) or values.keys() - {"num_heads", "scale"}
    biased = len(attention.input) > BIAS and bool(attention.input[BIAS])
    return biased and not extra and abs(scale * size**0.5 - 1) < SAME_SCALE and len(attention.output) == 1


def part_norms(model: onnx.ModelProto) -> int:
    """LayerNorm(x + residual) with its addition as `Sum`. Returns how many.

    ONNX Runtime makes `SkipLayerNormalization` of an Add and a norm, whatever it is asked; on x86-64 its kernel takes
    some four times as long as both (measured with 1.32: docs/design/onnx-attention.md).
    """
    graph, found = model.graph, 0
    for norm in [n for n in graph.node if n.op_type == "LayerNormalization"]:
        total = maker(graph, norm.input[0])
        if total is not None and total.op_type == "Add":
            total.op_type = "Sum"
            found += 1
    return found


def _product_and_bias(graph: onnx.GraphProto, name: str) -> tuple[str, np.ndarray, onnx.NodeProto] | None:
    """The product, its bias (width,), and the Add of the two that makes `name` for one reader."""
    add = maker(graph, name)
    if add is None or add.op_type != "Add" or _reads(graph, name) != 1:
        return None
    for place in (0, 1):
        bias, product = constant(graph, add.input[place]), maker(graph, add.input[1 - place])
        if bias is not None and bias.ndim == 1 and product is not None and product.op_type == "MatMul":
            return add.input[1 - place], bias, add
    return None


def _reads(graph: onnx.GraphProto, name: str) -> int:
    """How often a value is an input; one node may read it twice."""
    return sum(read == name for node in graph.node for read in node.input)


def _set_input(node: onnx.NodeProto, place: int, name: str) -> None:
    """Inputs before `place` that are not there become empty ones."""
    while len(node.input) <= place:
        node.input.append("")
    node.input[place] = name
