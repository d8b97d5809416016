"""Embedding tables in few bits: what is looked up, for indices of any shape."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx_layer_sample import written

from edgekit.errors import StageError
from edgekit.formats.onnx_embedding import embedding_int4, embedding_int8


def table(weights: NDArray[np.float32], rank: int) -> ir.Model:
    node = helper.make_node("Gather", ["w", "index"], ["y"], "embedding")
    index = helper.make_tensor_value_info("index", TensorProto.INT64, [f"d{axis}" for axis in range(rank)])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "table", [index], [y], [numpy_helper.from_array(weights, "w")])
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))


def look_up(model: ir.Model, index: NDArray[np.int64]) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(written(model), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], {"index": index})[0])


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(1, 9), st.sampled_from((8, 32, 40, 52, 96)), st.integers(0, 2**32 - 1))
def test_every_value_is_off_by_a_step_at_most(rank: int, rows: int, width: int, seed: int) -> None:
    dice = np.random.default_rng(seed)
    weights = (dice.normal(size=(rows, width)) * dice.choice([1e-3, 1.0, 1e6], size=(rows, 1))).astype(np.float32)
    index = dice.integers(0, rows, size=(2, 3, 2)[:rank])
    for rewrite, steps in ((embedding_int4, 8), (embedding_int8, 254)):
        model = table(weights, rank)
        rewrite(model, "w")
        found = look_up(model, index)
        assert found.shape == (*index.shape, width)
        largest = np.abs(weights).max(axis=1)[index][..., None]
        assert np.all(np.abs(found - weights[index]) <= largest / steps * 1.01 + 1e-6)


def test_a_table_as_wide_as_tinyberts_is_half_a_byte_a_value() -> None:
    weights = np.random.default_rng(0).normal(size=(50, 312)).astype(np.float32)
    model = table(weights, 2)
    embedding_int4(model, "w")
    assert list(model.graph.initializers["w.int4"].shape) == [50, 12, 13]  # twelve blocks of 26
    assert np.abs(look_up(model, np.arange(50)[None])[0] - weights).max() < np.abs(weights).max() / 8 * 1.01


def test_a_table_that_others_read_stays_for_them() -> None:
    weights = np.random.default_rng(0).normal(size=(9, 32)).astype(np.float32)
    model = table(weights, 2)
    shared = model.graph.initializers["w"]
    model.graph.append(ir.node("Transpose", [shared], name="other"))
    embedding_int8(model, "w")
    assert [node.name for node in shared.consumers()] == ["other"]
    assert model.graph.initializers["w"] is shared
    alone = table(weights, 2)
    embedding_int8(alone, "w")
    assert "w" not in alone.graph.initializers


def test_rows_that_are_no_whole_blocks_are_refused() -> None:
    with pytest.raises(StageError, match="embeddings of 38 columns do not divide into int4 blocks of 8 to 32"):
        embedding_int4(table(np.ones((3, 38), np.float32), 2), "w")
