"""One attention layer as a small ONNX graph, and how such graphs are run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

WIDTH, HEADS = 8, 2
DICE = np.random.default_rng(0)


def layer(**changes: str) -> ir.Model:
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
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=10))


def run(model: ir.Model) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(written(model), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).normal(size=(2, 5, WIDTH)).astype(np.float32)
    return np.asarray(session.run(["y"], {"x": x})[0])


def written(model: ir.Model) -> bytes:
    return bytes(ir.to_proto(model).SerializeToString())


def optimized(model: ir.Model, folder: Path) -> set[str]:
    """The operators that ONNX Runtime executes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3  # it warns that the file is made for this processor
    onnxruntime.InferenceSession(written(model), options, providers=["CPUExecutionProvider"])
    return {node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node}
