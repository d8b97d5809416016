"""Fusing rewrites: the same values, fewer operators; and graphs that look alike and must stay as they are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx_layer_sample import layer, optimized, run

from edgekit.formats.onnx_fuse import bias_into_attention, pack_attention, part_norms


def test_the_same_values_by_fewer_operators() -> None:
    model = layer()
    before = run(model)
    assert bias_into_attention(model) == 1
    np.testing.assert_allclose(run(model), before, atol=1e-5)
    found = Counter(node.op_type for node in model.graph)
    assert found == {"MatMul": 4, "MultiHeadAttention": 1, "Add": 2, "LayerNormalization": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"context.1": "query"},  # one sum, read twice
        {"query.1": "fixed"},  # not a bias
        {"query.0": "x"},  # not of a product
    ],
)
def test_attention_keeps_what_is_no_bias_of_its_own(changes: dict[str, str]) -> None:
    assert bias_into_attention(layer(**changes)) == 0


def test_the_runtime_leaves_a_norm_beside_its_residual(tmp_path: Path) -> None:
    model = layer()
    before = run(model)
    assert "SkipLayerNormalization" in optimized(model, tmp_path)
    assert part_norms(model) == 1
    found = optimized(model, tmp_path)
    assert "LayerNormalization" in found and "SkipLayerNormalization" not in found
    np.testing.assert_allclose(run(model), before, atol=1e-5)
    assert part_norms(model) == 0  # nothing is left to do
    assert part_norms(layer(**{"y.0": "x"})) == 0  # a norm of what nothing is added to


PRODUCTS = ("query", "key", "value")


def fused(**changes: str) -> ir.Model:
    """A layer whose attention has its biases; the products have names."""
    model = layer(**changes)
    for node in model.graph:
        node.name = node.outputs[0].name.removesuffix(".product")
    bias_into_attention(model)
    return model


def test_three_products_and_their_attention_are_one_operator() -> None:
    model = fused()
    before = run(model)
    assert pack_attention(model, PRODUCTS) == ["context"]
    np.testing.assert_allclose(run(model), before, atol=1e-5)
    found = Counter(node.op_type for node in model.graph)
    assert found == {"Attention": 1, "MatMul": 1, "Add": 2, "LayerNormalization": 1}


def test_an_attention_is_not_packed_where_it_would_compute_something_else() -> None:
    assert pack_attention(fused(), ("query", "key")) == []  # the value's product stays in float
    assert pack_attention(layer(), PRODUCTS) == []  # biases are added outside
    other = fused()
    elsewhere = ir.node("Identity", [other.graph.inputs[0]])
    first = next(node for node in other.graph if node.name == "query")
    other.graph.insert_before(first, elsewhere)
    first.replace_input_with(0, elsewhere.outputs[0])  # of other positions, for all one can tell
    assert pack_attention(other, PRODUCTS) == []
    for changed in ({"scale": 0.3}, {"unidirectional": 1}):
        model = fused()
        attention_of(model).attributes.update({n: ir.convenience.convert_attribute(n, v) for n, v in changed.items()})
        assert pack_attention(model, PRODUCTS) == []
    added = fused()
    attention = attention_of(added)
    attention.resize_inputs(6)
    attention.replace_input_with(5, added.graph.initializers["fixed"])  # as MPNet and DeBERTa add relative positions
    assert pack_attention(added, PRODUCTS) == []


def attention_of(model: ir.Model) -> ir.Node:
    return next(node for node in model.graph if node.op_type == "MultiHeadAttention")
