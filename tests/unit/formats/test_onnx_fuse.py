"""Fusing rewrites: the same values, fewer operators; and graphs that look alike and must stay as they are."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgekit.formats.onnx_fuse import bias_into_attention, fuse_skip_norm

WIDTH, HEADS = 8, 2
DICE = np.random.default_rng(0)


def layer(**changes: str) -> onnx.ModelProto:
    """One attention with its residual and norm; `changes` renames what a node's input is, by "OUTPUT.PLACE"."""
    nodes = []
    for name in ("query", "key", "value"):
        nodes.append(helper.make_node("MatMul", ["x", f"{name}.w"], [f"{name}.product"]))
        nodes.append(helper.make_node("Add", [f"{name}.product", f"{name}.b"], [name]))
    heads = {"num_heads": HEADS, "domain": "com.microsoft"}
    nodes += [
        helper.make_node("MultiHeadAttention", ["query", "key", "value"], ["context"], **heads),
        helper.make_node("MatMul", ["context", "out.w"], ["product"]),
        helper.make_node("Add", ["out.b", "product"], ["output"]),
        helper.make_node("Add", ["output", "x"], ["total"]),
        helper.make_node("LayerNormalization", ["total", "gamma", "beta"], ["y"], epsilon=1e-3),
    ]
    for node in nodes:
        for place in range(len(node.input)):
            node.input[place] = changes.get(f"{node.output[0]}.{place}", node.input[place])
    names = [f"{n}.{kind}" for n in ("query", "key", "value", "out") for kind in "wb"] + ["gamma", "beta"]
    shapes = [(WIDTH, WIDTH) if name.endswith(".w") else (WIDTH,) for name in names]
    constants = [
        numpy_helper.from_array(DICE.normal(size=shape).astype(np.float32), name)
        for name, shape in zip(names, shapes, strict=True)
    ]
    constants.append(numpy_helper.from_array(np.ones((1, 1, WIDTH), np.float32), "fixed"))
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", "length", WIDTH]) for n in "xy")
    graph = helper.make_graph(nodes, "layer", [x], [y], constants)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def run(model: onnx.ModelProto) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).normal(size=(2, 5, WIDTH)).astype(np.float32)
    return np.asarray(session.run(["y"], {"x": x})[0])


def test_the_same_values_by_fewer_operators() -> None:
    model = layer()
    before = run(model)
    assert (bias_into_attention(model), fuse_skip_norm(model)) == (1, 1)
    np.testing.assert_allclose(run(model), before, atol=1e-5)
    found = Counter(node.op_type for node in model.graph.node)
    assert found == {"MatMul": 4, "MultiHeadAttention": 1, "SkipLayerNormalization": 1}


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


@pytest.mark.parametrize(
    "changes",
    [
        {"total.1": "fixed"},  # broadcast, not a residual
        {"output.0": "fixed"},  # not a bias
        {"total.0": "context", "total.1": "x"},  # no product
    ],
)
def test_a_norm_of_something_else_stays(changes: dict[str, str]) -> None:
    assert fuse_skip_norm(layer(**changes)) == 0


def test_a_sum_that_others_read_stays() -> None:
    model = layer()
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    model.graph.node.append(helper.make_node("Identity", ["total"], ["z"]))
    assert fuse_skip_norm(model) == 0
