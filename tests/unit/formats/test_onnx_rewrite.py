from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx_layer_sample import written

from edgekit.artifact import Task
from edgekit.formats.onnx_encoder import operators, write_onnx
from edgekit.formats.onnx_rewrite import drop_reshapes, first_token_only
from edgekit.nn.load import load_classifier

TASK = Task(labels=("a", "b", "c"), max_length=32)


def run(model: ir.Model | Path, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    import onnxruntime

    given = str(model) if isinstance(model, Path) else written(model)
    session = onnxruntime.InferenceSession(given, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, inputs)[0])


@pytest.fixture
def both(any_family: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The same model, exported without and with the rewrites."""
    plain, rewritten = tmp_path / "plain.onnx", tmp_path / "rewritten.onnx"
    write_onnx(load_classifier(any_family), TASK, plain, rewrite=False)
    write_onnx(load_classifier(any_family), TASK, rewritten)
    return plain, rewritten


def test_every_family_computes_the_same_without_reshapes_and_one_position_in_its_last_layer(
    both: tuple[Path, Path],
) -> None:
    plain, rewritten = both
    assert operators(plain)["Reshape"] > 0
    assert "Reshape" not in operators(rewritten)
    assert any(node.name.startswith("first_token") for node in onnx.load(str(rewritten)).graph.node)
    assert operators(rewritten)["Gelu"] >= 2
    assert "Erf" not in operators(rewritten)
    for batch, length, padded in ((1, 1, 0), (1, 9, 0), (3, 12, 5), (2, TASK.max_length, 3)):
        ids = np.random.default_rng(length).integers(6, 40, (batch, length))
        mask = np.ones_like(ids)
        if padded:
            mask[-1, -padded:] = 0
        inputs = {"input_ids": ids, "attention_mask": mask}
        assert np.abs(run(plain, inputs) - run(rewritten, inputs)).max() < 1e-5


def graph(nodes: list[onnx.NodeProto], weights: dict[str, NDArray[Any]]) -> ir.Model:
    """(batch, length, 4) -> `out`."""
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    made = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "length", 4])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        initializers,
    )
    return ir.from_proto(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))


WEIGHTS = {
    "w": np.eye(4, dtype=np.float32) * 2,
    "b": np.arange(4, dtype=np.float32),
    "zero": np.array(0, np.int64),
    "one": np.array(1, np.int64),
}
LINEAR = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])]
X = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)


def test_a_selection_moves_above_what_works_position_by_position() -> None:
    model = graph([*LINEAR, helper.make_node("Gather", ["y", "zero"], ["out"], axis=1)], WEIGHTS)
    before = run(model, {"x": X})
    assert first_token_only(model) == 2
    assert [n.op_type for n in model.graph] == ["Gather", "MatMul", "Add", "Gather"]
    np.testing.assert_array_equal(run(model, {"x": X}), before)


@pytest.mark.parametrize(
    ("why", "tail"),
    [
        ("another token", [helper.make_node("Gather", ["y", "one"], ["out"], axis=1)]),
        ("another axis", [helper.make_node("Gather", ["y", "zero"], ["out"], axis=0)]),
        ("all positions", [helper.make_node("ReduceSum", ["y", "one"], ["out"])]),
        ("softmax over positions", [
            helper.make_node("Softmax", ["y"], ["s"], axis=1),
            helper.make_node("Gather", ["s", "zero"], ["out"], axis=1)
        ]),
        ("read by another, too", [
            helper.make_node("Gather", ["y", "zero"], ["g"], axis=1), helper.make_node("ReduceSum", ["y"], ["all"]),
            helper.make_node("Add", ["g", "all"], ["out"]),
        ]),
    ],
)  # fmt: skip
def test_a_selection_stays_where_other_positions_matter(why: str, tail: list[onnx.NodeProto]) -> None:
    weights = {**WEIGHTS, "one": np.array([1], np.int64)} if why == "all positions" else WEIGHTS
    model = graph([*LINEAR, *tail], weights)
    before = run(model, {"x": X})
    assert first_token_only(model) == 0
    np.testing.assert_array_equal(run(model, {"x": X}), before)


@pytest.mark.parametrize("shape", [(1, 5, 4), (5, 4)])
def test_a_table_that_differs_by_position_is_read_at_the_right_one(shape: tuple[int, ...]) -> None:
    weights = {**WEIGHTS, "table": np.arange(20, dtype=np.float32).reshape(shape)}
    nodes = [helper.make_node("Add", ["x", "table"], ["y"]), helper.make_node("Gather", ["y", "zero"], ["out"], axis=1)]
    model = graph(nodes, weights)
    before = run(model, {"x": X})
    first_token_only(model)
    np.testing.assert_array_equal(run(model, {"x": X}), before)


def test_reshapes_away_from_attention_stay() -> None:
    weights = {**WEIGHTS, "shape": np.array([0, -1], np.int64)}
    model = graph([*LINEAR, helper.make_node("Reshape", ["y", "shape"], ["out"])], weights)
    assert drop_reshapes(model) == 0
    assert [n.op_type for n in model.graph] == ["MatMul", "Add", "Reshape"]
