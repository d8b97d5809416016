from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx_layer_sample import written

from edgekit.artifact import Task
from edgekit.formats.onnx_encoder import operators, write_onnx
from edgekit.formats.onnx_fold import fold_positions, fuse_gelu
from edgekit.formats.onnx_graph import drop_unread, load_model
from edgekit.nn.load import load_classifier


def run(model: ir.Model, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(written(model), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, inputs)[0])


def gelu(*more: NodeProto, divisor: float = 2**0.5, plus: float = 1.0, half: float = 0.5) -> ir.Model:
    nodes = [
        helper.make_node("Div", ["x", "divisor"], ["d"]),
        helper.make_node("Erf", ["d"], ["e"]),
        helper.make_node("Add", ["e", "plus"], ["p"]),
        helper.make_node("Mul", ["half", "p"], ["h"]),
        helper.make_node("Mul", ["x", "h"], ["y"]),
        *more,
    ]
    constants = {"divisor": divisor, "plus": plus, "half": half}
    values = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in constants.items()]
    names = ("x", "y", *(node.output[0] for node in more))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in names]
    graph = helper.make_graph(nodes, "test", ends[:1], ends[1:], values)
    opsets = [helper.make_opsetid("", 18)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=10))


X = np.linspace(-6, 6, 101, dtype=np.float32)


def test_gelu_becomes_one_operator_of_the_same_values() -> None:
    model = gelu()
    before = run(model, {"x": X})
    assert fuse_gelu(model) == 1
    assert [n.op_type for n in model.graph] == ["Gelu"]
    np.testing.assert_allclose(run(model, {"x": X}), before, atol=1e-6)


@pytest.mark.parametrize("change", [{"divisor": 1.5}, {"plus": 0.5}, {"half": 0.6}])
def test_what_is_not_gelu_stays(change: dict[str, float]) -> None:
    model = gelu(**change)
    assert fuse_gelu(model) == 0
    assert [n.op_type for n in model.graph].count("Erf") == 1


@pytest.mark.parametrize("value", ["d", "e", "p", "h"])
def test_gelu_whose_parts_others_read_stays(value: str) -> None:
    model = gelu(helper.make_node("Neg", [value], ["z"]))
    assert fuse_gelu(model) == 0


def test_positions_are_cut_to_the_longest_input_and_not_looked_up(tiny: Callable[..., Path], tmp_path: Path) -> None:
    folder = tiny("bert")
    write_onnx(load_classifier(folder), Task(labels=("a", "b", "c"), max_length=16), tmp_path / "model.onnx")
    graph = load_model(tmp_path / "model.onnx").graph
    lookups = [n.inputs[0].name for n in graph if n.op_type == "Gather"]
    assert not [name for name in lookups if "position" in name or "token_type" in name]
    assert [list(t.shape)[:2] for name, t in graph.initializers.tensor_items() if "position" in name] == [[1, 16]]


def test_segments_that_the_task_tells_apart_stay_a_lookup(tiny: Callable[..., Path], tmp_path: Path) -> None:
    task = Task(labels=("a", "b", "c"), max_length=16, segments=True)
    write_onnx(load_classifier(tiny("bert")), task, tmp_path / "model.onnx")
    lookups = [n.inputs[0].name for n in load_model(tmp_path / "model.onnx").graph if n.op_type == "Gather"]
    assert [name for name in lookups if "token_type" in name]


def test_positions_that_depend_on_the_text_stay_a_lookup(tiny: Callable[..., Path], tmp_path: Path) -> None:
    write_onnx(load_classifier(tiny("roberta")), Task(labels=("a", "b", "c"), max_length=16), tmp_path / "model.onnx")
    model = load_model(tmp_path / "model.onnx")
    assert [n for n in model.graph if n.op_type == "Gather" and "position" in n.inputs[0].name]
    assert operators(tmp_path / "model.onnx")["Gelu"] == 2
    assert fold_positions(model, 16) == 0


WIDTH = 4


def embedded(*more: NodeProto, counted: bool = True, segment: str = "same") -> ir.Model:
    """x + segment + position for x (batch, length, WIDTH); `segment` names its index."""
    nodes = [
        helper.make_node("Shape", ["x"], ["length"], start=1, end=2),
        helper.make_node("Slice", ["places", "zero", "length", "one"], ["index"]),
        helper.make_node("Gather", ["segments", segment], ["segment"]),
        helper.make_node("Gather", ["positions", "index"], ["position"]),
        helper.make_node("Add", ["x", "segment"], ["total"]),
        helper.make_node("Add", ["total", "position"], ["y"]),
        *more,
    ]
    dice = np.random.default_rng(0)
    places = np.arange(10)[None] + (0 if counted else 1)
    constants: dict[str, NDArray[Any]] = {"places": places, "zero": np.zeros(1, np.int64), "one": np.ones(1, np.int64)}
    constants |= {"same": np.zeros((1, 1), np.int64), "mixed": np.array([[0, 1, 0, 1, 1]])}
    constants |= {name: dice.normal(size=(12, WIDTH)).astype(np.float32) for name in ("segments", "positions")}
    tensors = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    names = ("x", "y", *(node.output[0] for node in more))
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", "length", WIDTH]) for n in names]
    graph = helper.make_graph(nodes, "test", ends[:1], ends[1:], tensors)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))


TEXT = {"x": np.random.default_rng(1).normal(size=(2, 5, WIDTH)).astype(np.float32)}


def test_a_segment_goes_into_the_positions_and_they_are_cut() -> None:
    model = embedded()
    before = run(model, TEXT)
    assert fold_positions(model, 8) == 2
    drop_unread(model)
    assert [n.op_type for n in model.graph] == ["Shape", "Slice", "Add"]
    np.testing.assert_allclose(run(model, TEXT), before, atol=1e-6)


def test_what_is_not_known_stays_a_lookup() -> None:
    other = embedded(counted=False, segment="mixed")
    assert fold_positions(other, 8) == 0
    assert [n.op_type for n in other.graph].count("Gather") == 2


@pytest.mark.parametrize("value", ["total", "position"])
def test_a_sum_or_a_table_that_others_read_keeps_its_values(value: str) -> None:
    model = embedded(helper.make_node("Neg", [value], ["z"]))
    before = run(model, TEXT)
    assert fold_positions(model, 8) == 2
    assert [n.op_type for n in model.graph].count("Add") == 2
    np.testing.assert_allclose(run(model, TEXT), before, atol=1e-6)
