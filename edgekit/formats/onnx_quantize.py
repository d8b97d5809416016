"""Quantizing an ONNX file with operators that stock ONNX Runtime executes.

Matrix products by ONNX Runtime's own quantizers; embedding tables by a rewrite of ours, since theirs takes one scale
for a whole table, which costs accuracy: here every row (int8) or every block of a row (int4) has its own.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from edgekit.errors import StageError
from edgekit.formats.onnx_embedding import embedding_int4, embedding_int8, embedding_tables, take_initializer

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx

__all__ = ["OPERATORS", "Calibration", "Method", "Product", "matrix_products", "quantize_onnx"]

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
BLOCK = 32  # inputs of a weight-only product that share a scale


class Product(NamedTuple):
    """A matrix product with a constant weight: names of its node and weight, and the operator."""

    node: str
    weight: str
    operator: str


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
) -> list[str]:
    """Write the quantized file; returns the names of the nodes that were quantized.

    `reduce_range`: int8 weights use 7 of their 8 bits (see docs/design/int8-range.md).
    `exclude`: nodes whose name or weight's name contains one of these texts stay in float; `keep`: nodes and
    tables that do, by their whole names.
    `smooth`: alpha of `onnx_smooth`, for int8 products; 0: none.
    `feeds`: calibration inputs for int8-static and for smoothing, each (batch, length).
    Source: onnxruntime.quantization (dynamic: weights symmetric int8, activations uint8 per tensor at run time).
    """
    products = matrix_products(source)
    skipped = [p.node for p in products if p.node in keep or any(x in p.node or x in p.weight for x in exclude)]
    chosen = [p.node for p in products if p.node not in skipped and p.operator in OPERATORS[method]]
    known = embedding_tables(source) if embedding_bits else []
    tables = [t for t in known if t not in keep and not any(x in t for x in exclude)]
    if not chosen and not tables:
        raise StageError(
            "nothing left to quantize: every matrix product and embedding table is excluded",
            hint="--exclude takes parts of names; see edgekit explain",
        )
    with tempfile.TemporaryDirectory(dir=out.parent) as folder, _quiet():
        stepping_stone = Path(folder) / "embedded.onnx"
        _prepare(source, stepping_stone, chosen, tables, embedding_bits)
        if smooth and method in ("int8-dynamic", "int8-static"):
            _smooth(stepping_stone, smooth, feeds)
        if not chosen:
            stepping_stone.replace(out)
        elif method == "int8-dynamic":
            packed = _packed(stepping_stone, chosen)
            _dynamic(stepping_stone, out, [*chosen, *packed], per_channel, reduce_range)
        elif method == "int8-static":
            _static(stepping_stone, out, chosen, per_channel, reduce_range, calibration, feeds)
        else:
            _weight_only(stepping_stone, out, skipped, bits=4 if method == "int4-weight-only" else 8)
    return [*chosen, *tables]


def _smooth(file: Path, alpha: float, feeds: Iterable[dict[str, np.ndarray[Any, Any]]]) -> None:
    import onnx

    from edgekit.formats.onnx_graph import drop_unread
    from edgekit.formats.onnx_smooth import activation_ranges, fold, groups

    model = onnx.load(str(file))
    found = groups(model)
    largest = activation_ranges(file, [group.activation for group in found], feeds)
    for group in found:
        fold(model, group, largest[group.activation], alpha)
    drop_unread(model.graph)
    onnx.save(model, str(file))


def _packed(file: Path, products: Collection[str]) -> list[str]:
    """Pack the attentions of the file whose products all go to int8: one operator each is then all of it."""
    import onnx

    from edgekit.formats.onnx_fuse import pack_attention

    model = onnx.load(str(file))
    found = pack_attention(model, products)
    onnx.save(model, str(file))
    return found


def matrix_products(file: Path) -> list[Product]:
    """Every MatMul or Gemm with a constant weight."""
    import onnx

    graph = onnx.load(str(file)).graph
    constants = {tensor.name for tensor in graph.initializer}
    return [
        Product(node.name, node.input[1], node.op_type)
        for node in graph.node
        if node.op_type in ("MatMul", "Gemm") and node.input[1] in constants
    ]


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
    feeds: Iterable[dict[str, np.ndarray[Any, Any]]],
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
            self.feeds = iter(feeds)

        def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
            return next(self.feeds, None)

    from edgekit.formats.onnx_graph import drop_unread

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
            # norms, GELU and attention take float: an int8 output would be turned back at once, by an operator more
            "OpTypesToExcludeOutputQuantization": ["MatMul"],
        },
    )
    model = onnx.load(str(out))
    _float_for_others(model)
    drop_unread(model.graph)
    onnx.save(model, str(out))


def _float_for_others(model: onnx.ModelProto) -> None:
    """What the quantizer rounds for a product, it hands to every other reader rounded, too (a residual, for one): those
    read the value itself again, which is nearer, and one operator less."""
    made = {node.output[0]: node for node in model.graph.node}
    for node in model.graph.node:
        if node.op_type == "MatMul":
            continue
        for place, name in enumerate(node.input):
            unpack = made.get(name)
            rounded = made.get(unpack.input[0]) if unpack is not None and unpack.op_type == "DequantizeLinear" else None
            if rounded is not None and rounded.op_type == "QuantizeLinear":
                node.input[place] = rounded.input[0]


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


def _prepare(source: Path, out: Path, products: list[str], tables: list[str], bits: EMBEDDING_BITS) -> None:
    """Rewrite what ONNX Runtime's quantizers do not take: the Gemms among `products`, and embedding tables."""
    import onnx

    model = onnx.load(str(source))
    for node in [n for n in model.graph.node if n.op_type == "Gemm" and n.name in products]:
        _gemm_to_matmul(model, node)
    for table in tables:
        (embedding_int4 if bits == 4 else embedding_int8)(model, table)
    _declare(model, products)
    onnx.save(model, str(out))


def _declare(model: onnx.ModelProto, products: list[str]) -> None:
    """Say that what flows into and out of `products` is float. Behind operators of ONNX Runtime's own (attention, GELU)
    its static quantizer cannot tell, and leaves such an input in float with no more than a line in the log."""
    from onnx import TensorProto, helper

    flowing = {name for n in model.graph.node if n.name in products for name in (n.input[0], n.output[0])}
    for name in sorted(flowing - {value.name for value in (*model.graph.input, *model.graph.output)}):
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))


def _gemm_to_matmul(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """x W^T + b as MatMul and Add, under the same names; a Gemm that scales its terms stays."""
    from onnx import helper, numpy_helper

    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if found.get("transA", 0) or found.get("alpha", 1.0) != 1.0 or found.get("beta", 1.0) != 1.0:
        return
    weight = take_initializer(model, node.input[1])
    array = np.ascontiguousarray(weight.T if found.get("transB", 0) else weight)
    model.graph.initializer.append(numpy_helper.from_array(array, node.input[1]))
    output, position = node.output[0], list(model.graph.node).index(node)
    product = output if len(node.input) < 3 else f"{output}.product"
    new = [helper.make_node("MatMul", list(node.input[:2]), [product], node.name)]
    if len(node.input) == 3:
        new.append(helper.make_node("Add", [product, node.input[2]], [output], f"{node.name}.bias"))
    model.graph.node.remove(node)
    for offset, item in enumerate(new):
        model.graph.node.insert(position + offset, item)


@contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime's quantizers advise on the root logger; our facts say what matters."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
