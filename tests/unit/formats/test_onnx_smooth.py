"""Smoothing: the same values, flatter channels; and what cannot be folded into stays."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_layer_sample import WIDTH, layer, run

from edgekit.formats.onnx_fuse import bias_into_attention
from edgekit.formats.onnx_smooth import activation_ranges, fold, groups


def prenorm(*, residual: bool = False, bias: bool = True) -> ir.Model:
    """Two products of a normed input; with `residual`, the norm is read by a sum, too; `bias`: of the norm."""
    dice = np.random.default_rng(3)
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gain", *(["bias"] if bias else [])], ["normed"]),
        helper.make_node("MatMul", ["normed", "up"], ["wide"]),
        helper.make_node("MatMul", ["normed", "gate"], ["gated"]),
        helper.make_node("Add", ["wide", "gated"], ["sum"]),
        helper.make_node("Add", ["sum", "normed" if residual else "x"], ["y"]),
    ]
    gain = np.ones(WIDTH, np.float32)
    gain[2] = 40  # an outlier channel
    constants = {"gain": gain, "bias": dice.normal(size=WIDTH).astype(np.float32)}
    constants |= {name: dice.normal(size=(WIDTH, WIDTH)).astype(np.float32) for name in ("up", "gate")}
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", "length", WIDTH]) for n in "xy")
    tensors = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=10))


def attended() -> ir.Model:
    model = layer()
    assert bias_into_attention(model) == 1
    return model


@pytest.mark.parametrize(
    "model", [prenorm(), prenorm(bias=False), attended()], ids=["norm", "norm without bias", "attention"]
)
def test_the_same_values_with_flatter_channels(model: ir.Model) -> None:
    before = run(model)
    (group,) = groups(model)
    feeds = [{"x": np.random.default_rng(seed).normal(size=(1, 6, WIDTH)).astype(np.float32)} for seed in range(3)]
    largest = activation_ranges(model, [group.activation], feeds)[group.activation]
    scale = fold(model, group, largest, 0.9)
    np.testing.assert_allclose(run(model), before, rtol=1e-4, atol=1e-4)
    after = activation_ranges(model, [group.activation], feeds)[group.activation]
    np.testing.assert_allclose(after, largest / scale, rtol=1e-4)
    assert after.max() / after.min() < 0.8 * largest.max() / largest.min()


def test_a_norm_that_a_residual_reads_is_left_alone() -> None:
    assert groups(prenorm(residual=True)) == []


def test_values_whose_bias_is_apart_are_left_alone() -> None:
    assert groups(layer()) == []


def test_of_no_activations_nothing_is_measured() -> None:
    assert activation_ranges(prenorm(), [], [{"x": np.ones((1, 1, WIDTH), np.float32)}]) == {}
