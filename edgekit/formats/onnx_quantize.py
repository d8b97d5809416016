"""Quantizing an ONNX file with operators that stock ONNX Runtime executes.

Matrix products by ONNX Runtime's own quantizers; embedding tables by a rewrite of ours, since theirs takes one scale
for a whole table, which costs accuracy: here every row (int8) or every block of a row (int4) has its own.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from edgekit.errors import StageError
from edgekit.formats.onnx_embedding import embedding_int4, embedding_int8, embedding_tables
from edgekit.formats.onnx_fuse import pack_attention
from edgekit.formats.onnx_graph import (
    add_constant,
    drop_unread,
    input_at,
    load_model,
    only_reader,
    replace_constant,
    replace_node,
    save_model,
)
from edgekit.formats.onnx_smooth import activation_ranges, fold, groups

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx_ir as ir

__all__ = ["OPERATORS", "Calibration", "Method", "Product", "Quantized", "matrix_products", "quantize_onnx"]

Method = Literal["int8-dynamic", "int8-static", "int8-weight-only", "int4-weight-only"]
Calibration = Literal["minmax", "entropy", "percentile"]
EMBEDDING_BITS = Literal[0, 4, 8]
# Gemm is what the pooler and the head are. ONNX Runtime's static quantizer has no scale for its input, behind a slice.
OPERATORS: dict[Method, tuple[str, ...]] = {
    "int8-dynamic": ("MatMul", "Gemm"),
    "int8-static": ("MatMul",),
    "int8-weight-only": ("MatMul", "Gemm"),
    "int4-weight-only": ("MatMul", "Gemm"),
}
SMOOTHED = ("int8-dynamic", "int8-static")  # the methods whose activations are int8
BLOCK = 32  # inputs of a weight-only product that share a scale


class Product(NamedTuple):
    """A matrix product with a constant weight: names of its node and weight, and the operator."""

    node: str
    weight: str
    operator: str


@dataclass(frozen=True)
class Quantized:
    """Names of what was quantized (nodes, and embedding tables), of the activations that were smoothed, and of products
    that stayed in float because calibration read nothing but zeros there: such data give no scale."""

    touched: list[str]
    smoothed: list[str]
    idle: list[str]


def quantize_onnx(
    source: Path,
    out: Path,
    method: Method,
    *,
    per_channel: bool = True,
    reduce_range: bool = True,
    exclude: Sequence[str] = (),
    keep: Collection[str] = (),
    embedding_bits: EMBEDDING_BITS = 8,
    calibration: Calibration = "minmax",
    smooth: float = 0.0,
    feeds: Sequence[dict[str, np.ndarray[Any, Any]]] = (),
) -> Quantized:
    """Write the quantized file.

    `reduce_range`: int8 weights use 7 of their 8 bits (see docs/design/int8-range.md).
    `exclude`: nodes whose name or weight's name contains one of these texts stay in float; `keep`: nodes and
    tables that do, by their whole names.
    `smooth`: alpha of `onnx_smooth`, for int8 products; 0: none.
    `feeds`: calibration inputs for int8-static and for smoothing, each (batch, length).
    Source: onnxruntime.quantization (dynamic: weights symmetric int8, activations uint8 per tensor at run time).
    """
    model = load_model(source)
    products = matrix_products(model)
    skipped = [p.node for p in products if p.node in keep or any(x in p.node or x in p.weight for x in exclude)]
    chosen = [p.node for p in products if p.node not in skipped and p.operator in OPERATORS[method]]
    idle = _idle(model, chosen, feeds) if method == "int8-static" else []
    chosen = [node for node in chosen if node not in idle]
    known = embedding_tables(model) if embedding_bits else []
    tables = [t for t in known if t not in keep and not any(x in t for x in exclude)]
    if not chosen and not tables:
        raise StageError(
            "nothing left to quantize: every matrix product and embedding table is excluded"
            + (", or never exercised by the calibration data" if idle else ""),
            hint="--exclude takes parts of names; see edgekit explain",
        )
    _prepare(model, chosen, tables, embedding_bits)
    smoothed = _smooth(model, smooth, feeds) if smooth and method in SMOOTHED else []
    packed = pack_attention(model, chosen) if method == "int8-dynamic" else []
    if not chosen:
        save_model(model, out)
        return Quantized(tables, smoothed, idle)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder, _quiet():
        stepping_stone = Path(folder) / "prepared.onnx"
        save_model(model, stepping_stone)
        if method == "int8-dynamic":
            _dynamic(stepping_stone, out, [*chosen, *packed], per_channel, reduce_range)
        elif method == "int8-static":
            _static(stepping_stone, out, chosen, per_channel, reduce_range, calibration, feeds)
        else:
            _weight_only(stepping_stone, out, skipped, bits=4 if method == "int4-weight-only" else 8)
    return Quantized([*chosen, *tables], smoothed, idle)


def _idle(model: ir.Model, chosen: Collection[str], feeds: Iterable[dict[str, np.ndarray[Any, Any]]]) -> list[str]:
    """Which of the products read nothing but zeros."""
    read = {node.name: node.inputs[0].name for node in model.graph if node.name in chosen}
    largest = activation_ranges(model, list(dict.fromkeys(read.values())), feeds)
    return [name for name, activation in read.items() if not largest[activation].any()]


def _smooth(model: ir.Model, alpha: float, feeds: Iterable[dict[str, np.ndarray[Any, Any]]]) -> list[str]:
    """Fold into all that takes it; returns the activations that became flatter."""
    found = groups(model)
    names = [group.activation for group in found]
    largest = activation_ranges(model, names, feeds)
    for group in found:
        fold(model, group, largest[group.activation], alpha)
    drop_unread(model)
    return names


def matrix_products(model: ir.Model) -> list[Product]:
    """Every MatMul or Gemm with a constant weight."""
    nodes = [node for node in model.graph if node.op_type in ("MatMul", "Gemm")]
    return [Product(n.name, n.inputs[1].name, n.op_type) for n in nodes if n.inputs[1].is_initializer()]


def _dynamic(source: Path, out: Path, nodes: list[str], per_channel: bool, reduce_range: bool) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        str(source),
        str(out),
        op_types_to_quantize=["MatMul", "Gemm", "Attention"],
        nodes_to_quantize=nodes,
        per_channel=per_channel,
        reduce_range=reduce_range,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def _static(
    source: Path,
    out: Path,
    nodes: list[str],
    per_channel: bool,
    reduce_range: bool,
    calibration: Calibration,
    feeds: Sequence[dict[str, np.ndarray[Any, Any]]],
) -> None:
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.set_range(0, len(feeds))

        def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
            return next(self.left, None)

        def __len__(self) -> int:
            return len(feeds)

        def set_range(self, start_index: int, end_index: int) -> None:
            self.left = iter(feeds[start_index:end_index])

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    quantize_static(
        str(source),
        str(out),
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul"],
        nodes_to_quantize=nodes,
        per_channel=per_channel,
        reduce_range=reduce_range,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=methods[calibration],
        extra_options={
            "DefaultTensorType": onnx.TensorProto.FLOAT,
            # one input at a time: histograms are made of arrays of one shape, and texts differ in length
            **({} if calibration == "minmax" else {"CalibStridedMinMax": 1}),
            # norms, GELU and attention take float: an int8 output would be turned back at once, by an operator more
            "OpTypesToExcludeOutputQuantization": ["MatMul"],
        },
    )
    model = load_model(out)
    _float_for_others(model, {*nodes})
    drop_unread(model)
    save_model(model, out)


def _float_for_others(model: ir.Model, products: Collection[str]) -> None:
    """What the quantizer rounds for one of `products`, it hands to every other reader rounded, too (a residual, or a
    product that stays in float): those read the value itself again, which is nearer, and one operator less."""
    for node in [n for n in model.graph if n.name not in products]:
        for place, value in enumerate(node.inputs):
            unpack = value.producer() if value is not None else None
            if unpack is None or unpack.op_type != "DequantizeLinear":
                continue
            rounded = unpack.inputs[0].producer()
            if rounded is not None and rounded.op_type == "QuantizeLinear":
                node.replace_input_with(place, rounded.inputs[0])


def _weight_only(source: Path, out: Path, excluded: list[str], bits: Literal[4, 8]) -> None:
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(
        onnx.load(str(source)),
        bits=bits,
        block_size=BLOCK,
        is_symmetric=True,
        accuracy_level=4,  # activations go to int8 inside the kernel; without it the product is computed in float
        nodes_to_exclude=excluded,
    )
    quantizer.process()
    quantizer.model.save_model_to_file(str(out), False)


def _prepare(model: ir.Model, products: Collection[str], tables: Sequence[str], bits: EMBEDDING_BITS) -> None:
    """Rewrite what ONNX Runtime's quantizers do not take: the Gemms among `products`, and embedding tables."""
    for node in [n for n in model.graph if n.op_type == "Gemm" and n.name in products]:
        _gemm_to_matmul(model.graph, node)
    for table in tables:
        (embedding_int4 if bits == 4 else embedding_int8)(model, table)
    _declare(model, products)


def _declare(model: ir.Model, products: Collection[str]) -> None:
    """Say that what flows into and out of `products` is float. Behind operators of ONNX Runtime's own (attention, GELU)
    its static quantizer cannot tell, and leaves such an input in float with no more than a line in the log."""
    import onnx_ir as ir

    for node in [n for n in model.graph if n.name in products]:
        for value in (node.inputs[0], node.outputs[0]):
            if not value.is_graph_input() and not value.is_graph_output():
                value.dtype = ir.DataType.FLOAT


def _gemm_to_matmul(graph: ir.Graph, node: ir.Node) -> None:
    """x W^T + b as MatMul and Add, under the same names; a Gemm that scales its terms stays."""
    import onnx_ir as ir

    found = node.attributes
    if found.get_int("transA", 0) or found.get_float("alpha", 1.0) != 1.0 or found.get_float("beta", 1.0) != 1.0:
        return
    weight, bias, output = node.inputs[1], input_at(node, 2), node.outputs[0]
    if found.get_int("transB", 0):
        weight = _transposed(graph, weight)
    product = ir.node("MatMul", [node.inputs[0], weight], name=node.name)
    if bias is None:
        replace_node(node, product)
        return
    product.outputs[0].name = f"{output.name}.product"
    replace_node(node, product, ir.node("Add", [product.outputs[0], bias], name=f"{node.name}.bias"))


def _transposed(graph: ir.Graph, weight: ir.Value) -> ir.Value:
    """The weight itself, its values transposed, where one node reads it; else another one."""
    values = weight.const_value.numpy().T
    if only_reader(weight) is None:
        return add_constant(graph, f"{weight.name}.transposed", values)
    replace_constant(weight, values)
    return weight


@contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime's quantizers advise on the root logger; our facts say what matters."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
