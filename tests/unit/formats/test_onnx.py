from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.artifact import Task
from edgekit.errors import StageError
from edgekit.formats.onnx_embedding import embedding_tables
from edgekit.formats.onnx_encoder import operators, write_onnx
from edgekit.formats.onnx_graph import load_model
from edgekit.formats.onnx_quantize import OPERATORS, Method, matrix_products, quantize_onnx
from edgekit.nn.load import load_classifier
from tests.conftest import write_tiny

TASK = Task(labels=("a", "b", "c"), max_length=32)
Feed = dict[str, NDArray[np.int64]]


def feed(batch: int, length: int, padded: int = 0, segments: bool = False) -> Feed:
    ids = np.random.default_rng(batch * 100 + length).integers(6, 40, (batch, length))
    mask = np.ones_like(ids)
    if padded:
        mask[-1, -padded:] = 0
        ids[-1, -padded:] = 0
    found = {"input_ids": ids, "attention_mask": mask}
    if segments:
        found["token_type_ids"] = np.repeat([[0] * (length // 2) + [1] * (length - length // 2)], batch, axis=0)
    return found


def run(file: Path, inputs: Feed) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == list(inputs)
    return np.asarray(session.run(["logits"], inputs)[0])


def torch_logits(folder: Path, inputs: Feed) -> NDArray[np.float32]:
    import torch

    model = load_classifier(folder)
    with torch.no_grad():
        logits = model(**{name: torch.from_numpy(array) for name, array in inputs.items()}).logits
    return np.asarray(logits.numpy())


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder, and its file; exporting takes seconds."""
    folder = write_tiny(tmp_path_factory.mktemp("bert"), "bert")
    write_onnx(load_classifier(folder), TASK, folder / "model.onnx")
    return folder, folder / "model.onnx"


def test_every_family_agrees_with_torch_at_other_shapes(any_family: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    write_onnx(load_classifier(any_family), TASK, file)
    assert operators(file)["MultiHeadAttention"] == 2
    for batch, length, padded in ((1, 5, 0), (3, 11, 4), (2, 30, 29)):
        inputs = feed(batch, length, padded)
        assert np.abs(run(file, inputs) - torch_logits(any_family, inputs)).max() < 1e-4


def test_products_are_named_by_their_modules(bert: tuple[Path, Path]) -> None:
    names = [product.node for product in matrix_products(load_model(bert[1]))]
    assert names[0] == "bert.encoder.layer.0.attention.self.query"
    assert names[-2:] == ["bert.pooler.dense", "classifier"]
    assert len(set(names)) == len(names) == 14


def test_a_file_says_nothing_of_how_it_was_made(bert: tuple[Path, Path], tmp_path: Path) -> None:
    import onnx

    model = onnx.load(str(bert[1]))
    said = (model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer)
    assert not [one.name for one in said if one.metadata_props or one.doc_string]
    assert not model.graph.value_info
    quantize_onnx(bert[1], tmp_path / "q.onnx", "int8-static", feeds=[feed(1, 12)])
    graph = onnx.load(str(tmp_path / "q.onnx")).graph
    assert not {value.name for value in graph.value_info} & {tensor.name for tensor in graph.initializer}


def test_products_that_share_a_weight_are_all_quantized(tmp_path: Path) -> None:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    dice = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"], "first", transB=1),
        helper.make_node("Gemm", ["h", "w", "b"], ["y"], "second", transB=1),
    ]
    weights = {"w": dice.normal(size=(8, 8)).astype(np.float32), "b": dice.normal(size=8).astype(np.float32)}
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8]) for name in "xy")
    tensors = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    made = helper.make_model(
        helper.make_graph(nodes, "tied", [x], [y], tensors), opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )
    source, small = tmp_path / "tied.onnx", tmp_path / "small.onnx"
    onnx.save(made, str(source))
    assert quantize_onnx(source, small, "int8-dynamic").touched == ["first", "second"]
    inputs = {"x": dice.normal(size=(5, 8)).astype(np.float32)}
    sessions = [onnxruntime.InferenceSession(str(f), providers=["CPUExecutionProvider"]) for f in (source, small)]
    exact, found = (session.run(None, inputs)[0] for session in sessions)
    assert operators(small)["MatMulInteger"] == 2
    assert np.corrcoef(exact.ravel(), found.ravel())[0, 1] > 0.99


def test_segments_are_an_input_only_where_the_task_has_them(tiny: Callable[..., Path], tmp_path: Path) -> None:
    folder = tiny("bert")
    write_onnx(load_classifier(folder), TASK.model_copy(update={"segments": True}), tmp_path / "model.onnx")
    inputs = feed(2, 8, segments=True)
    assert np.abs(run(tmp_path / "model.onnx", inputs) - torch_logits(folder, inputs)).max() < 1e-4


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("method", ["int8-dynamic", "int8-static", "int8-weight-only", "int4-weight-only"])
def test_quantized_files_run_and_stay_close(bert: tuple[Path, Path], tmp_path: Path, method: Method, bits: int) -> None:
    _, file = bert
    out = tmp_path / "quantized.onnx"
    feeds = [feed(1, 12), feed(1, 20)]
    touched = quantize_onnx(file, out, method, embedding_bits=bits, feeds=feeds).touched  # type: ignore[arg-type]
    model = load_model(file)
    products = [product for product in matrix_products(model) if product.operator in OPERATORS[method]]
    assert len(products) >= 12
    assert len(touched) == len(products) + len(embedding_tables(model))
    inputs = feed(1, 12)
    exact, found = run(file, inputs), run(out, inputs)
    correlation = np.corrcoef(exact.ravel(), found.ravel())[0, 1]
    assert np.abs(exact - found).max() > 0  # it must have been changed
    assert correlation > (0.99 if method.startswith("int8") and bits == 8 else 0.9)
    assert out.stat().st_size < file.stat().st_size


def test_an_attention_whose_products_are_all_int8_is_one_operator(bert: tuple[Path, Path], tmp_path: Path) -> None:
    import onnx

    def attentions(**options: list[str]) -> dict[str, int]:
        quantize_onnx(bert[1], tmp_path / "q.onnx", "int8-dynamic", **options)  # type: ignore[arg-type]
        found = Counter(node.op_type for node in onnx.load(str(tmp_path / "q.onnx")).graph.node)
        return {name: count for name, count in found.items() if "Attention" in name}

    assert attentions() == {"QAttention": 1, "MultiHeadAttention": 1}  # of the last layer one position is asked
    several = feed(3, 12)
    several["attention_mask"][1:, 5:] = 0
    exact, found = run(bert[1], several), run(tmp_path / "q.onnx", several)
    assert np.corrcoef(exact.ravel(), found.ravel())[0, 1] > 0.99
    assert attentions(exclude=["layer.0.attention.self.value"]) == {"MultiHeadAttention": 2}


def test_excluded_layers_stay_as_they_are(bert: tuple[Path, Path], tmp_path: Path) -> None:
    _, file = bert
    model = load_model(file)
    names = [product.node for product in matrix_products(model)]
    touched = quantize_onnx(file, tmp_path / "q.onnx", "int8-dynamic", exclude=[names[0]], embedding_bits=0).touched
    assert names[0] not in touched
    assert not set(touched) & set(embedding_tables(model))
    with pytest.raises(StageError, match="nothing left to quantize"):
        quantize_onnx(file, tmp_path / "q.onnx", "int8-dynamic", exclude=names, embedding_bits=0)


def test_a_product_that_stays_in_float_reads_floats(bert: tuple[Path, Path], tmp_path: Path) -> None:
    """Also where it shares its input with products that do not, as queries do with keys and values."""
    _, file = bert
    names = [product.node for product in matrix_products(load_model(file))]
    (query,) = (name for name in names if "layer.0" in name and "query" in name)
    quantize_onnx(file, tmp_path / "q.onnx", "int8-static", exclude=[query], feeds=[feed(2, 9)])
    nodes = {node.name: node for node in load_model(tmp_path / "q.onnx").graph}
    readers = {name: node.inputs[0].producer().op_type for name, node in nodes.items() if name in names}
    assert readers[query] != "DequantizeLinear"
    beside = {op for name, op in readers.items() if "layer.0" in name and ("key" in name or "value" in name)}
    assert beside == {"DequantizeLinear"}


def test_int8_rows_are_off_by_at_most_half_a_step(bert: tuple[Path, Path], tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    _, file = bert
    table = embedding_tables(load_model(file))[0]
    quantize_onnx(file, tmp_path / "q.onnx", "int8-dynamic")
    before = {t.name: t for t in onnx.load(str(file)).graph.initializer}
    after = {t.name: t for t in onnx.load(str(tmp_path / "q.onnx")).graph.initializer}
    weights = numpy_helper.to_array(before[table])
    scale = numpy_helper.to_array(after[f"{table}.scale"])
    rows = numpy_helper.to_array(after[f"{table}.int8"]).astype(np.float32)
    assert np.all(np.abs(rows * scale - weights) <= scale / 2 * 1.001)
    assert table not in after


@pytest.mark.parametrize("method", ["int8-dynamic", "int8-static"])
def test_weights_leave_room_for_sums_on_any_processor(bert: tuple[Path, Path], tmp_path: Path, method: Method) -> None:
    import onnx

    def largest(**options: bool) -> int:
        out = tmp_path / "out.onnx"
        feeds = (feed(1, 5),) if method == "int8-static" else ()
        quantize_onnx(bert[1], out, method, embedding_bits=0, feeds=feeds, **options)
        weights = [t for t in onnx.load(str(out)).graph.initializer if t.data_type == onnx.TensorProto.INT8]
        return max(int(np.abs(onnx.numpy_helper.to_array(t).astype(int)).max()) for t in weights if len(t.dims) == 2)

    assert largest() == 64  # 2 x 255 x 64 fits into 16 bits
    assert largest(reduce_range=False) == 127
