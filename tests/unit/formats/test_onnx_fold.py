from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgekit.artifact import Task
from edgekit.formats.onnx_encoder import operators, write_onnx
from edgekit.formats.onnx_fold import fold_positions, fuse_gelu
from edgekit.nn.load import load_classifier


def run(model: onnx.ModelProto, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, inputs)[0])


def gelu(divisor: float = 2**0.5, plus: float = 1.0, half: float = 0.5) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Div", ["x", "divisor"], ["d"]),
        helper.make_node("Erf", ["d"], ["e"]),
        helper.make_node("Add", ["e", "plus"], ["p"]),
        helper.make_node("Mul", ["half", "p"], ["h"]),
        helper.make_node("Mul", ["x", "h"], ["y"]),
    ]
    constants = {"divisor": divisor, "plus": plus, "half": half}
    values = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in constants.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "test", ends[:1], ends[1:], values)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


X = np.linspace(-6, 6, 101, dtype=np.float32)


def test_gelu_becomes_one_operator_of_the_same_values() -> None:
    model = gelu()
    before = run(model, {"x": X})
    assert fuse_gelu(model) == 1
    assert [n.op_type for n in model.graph.node] == ["Gelu"]
    np.testing.assert_allclose(run(model, {"x": X}), before, atol=1e-6)


@pytest.mark.parametrize("change", [{"divisor": 1.5}, {"plus": 0.5}, {"half": 0.6}])
def test_what_is_not_gelu_stays(change: dict[str, float]) -> None:
    model = gelu(**change)
    assert fuse_gelu(model) == 0
    assert [n.op_type for n in model.graph.node].count("Erf") == 1


def test_positions_are_cut_to_the_longest_input_and_not_looked_up(tiny: Callable[..., Path], tmp_path: Path) -> None:
    folder = tiny("bert")
    write_onnx(load_classifier(folder), Task(labels=("a", "b", "c"), max_length=16), tmp_path / "model.onnx")
    lookups = [n.input[0] for n in onnx.load(str(tmp_path / "model.onnx")).graph.node if n.op_type == "Gather"]
    assert not [name for name in lookups if "position" in name or "token_type" in name]
    tables = [t for t in onnx.load(str(tmp_path / "model.onnx")).graph.initializer if "position" in t.name]
    assert [list(t.dims)[:2] for t in tables] == [[1, 16]]


def test_segments_that_the_task_tells_apart_stay_a_lookup(tiny: Callable[..., Path], tmp_path: Path) -> None:
    task = Task(labels=("a", "b", "c"), max_length=16, segments=True)
    write_onnx(load_classifier(tiny("bert")), task, tmp_path / "model.onnx")
    lookups = [n.input[0] for n in onnx.load(str(tmp_path / "model.onnx")).graph.node if n.op_type == "Gather"]
    assert [name for name in lookups if "token_type" in name]


def test_positions_that_depend_on_the_text_stay_a_lookup(tiny: Callable[..., Path], tmp_path: Path) -> None:
    write_onnx(load_classifier(tiny("roberta")), Task(labels=("a", "b", "c"), max_length=16), tmp_path / "model.onnx")
    model = onnx.load(str(tmp_path / "model.onnx"))
    assert [n for n in model.graph.node if n.op_type == "Gather" and "position" in n.input[0]]
    assert operators(tmp_path / "model.onnx")["Gelu"] == 2
    assert fold_positions(model, 16) == 0
