"""What a file's bytes are, by kind and type, and which of its matrices stayed in float: ONNX, OpenVINO IR, GGUF."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import onnx

__all__ = ["FLOATS", "Piece", "pieces"]

FLOATS = ("f32", "f16", "bf16")
MATRIX, TABLE, SCALE, VECTOR, GRAPH = "matrices", "embedding tables", "scales", "biases, norms, constants", "graph"
MULTIPLY = (
    *("MatMul", "Gemm", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMulNBits"),
    *("Attention", "QAttention"),  # their weights are query, key and value side by side
)
LOOK_UP = ("Gather", "GatherBlockQuantized")
UNPACK = ("DequantizeLinear",)
TYPES = {1: "f32", 2: "u8", 3: "i8", 6: "i32", 7: "i64", 10: "f16", 16: "bf16", 21: "u4", 22: "i4"}  # TensorProto's
TABLE_BYTES = 4096  # a matrix that is looked up and smaller than this is no embedding table


class Piece(NamedTuple):
    """One stored tensor: what it is for, its type, its bytes, and what the graph calls the operation that uses it."""

    kind: str
    type: str
    bytes: int
    name: str


def pieces(file: Path) -> list[Piece]:
    """Every tensor of a model file, and last what is not tensors: the graph, names, a tokenizer inside."""
    found = list({".onnx": _onnx, ".xml": _openvino, ".gguf": _gguf}[file.suffix](file))
    weights = file.with_suffix(".bin")
    whole = file.stat().st_size + (weights.stat().st_size if weights.is_file() else 0)
    rest = whole - sum(piece.bytes for piece in found)
    return [*found, Piece(GRAPH, "", rest, file.name)]


def _onnx(file: Path) -> Iterator[Piece]:
    import onnx

    graph = onnx.load(str(file)).graph
    readers: dict[str, tuple[onnx.NodeProto, int]] = {}
    for node in reversed(graph.node):
        readers.update({name: (node, place) for place, name in enumerate(node.input)})
    for tensor in graph.initializer:
        if tensor.name not in readers:
            continue
        node, place = readers[tensor.name]
        user = readers[node.output[0]][0] if node.op_type in UNPACK and node.output[0] in readers else node
        kind = _role(tensor, node, place, user.op_type)
        yield Piece(kind, _type(tensor, node, place), tensor.ByteSize(), user.name or tensor.name)


def _role(tensor: onnx.TensorProto, node: onnx.NodeProto, place: int, user: str) -> str:
    """`place`: of the node's inputs; `user`: the operator behind one that unpacks."""
    quantized = "uantize" in node.op_type or node.op_type.endswith(("Integer", "IntegerToFloat", "NBits"))
    first = place == (1 if node.op_type in MULTIPLY else 0)
    if (user in MULTIPLY or user in LOOK_UP) and len(tensor.dims) >= 2 and first:
        if user in MULTIPLY:
            return MATRIX
        return TABLE if tensor.dims[-1] > 1 else SCALE  # one scale a row is looked up beside it
    if node.op_type == "Slice" and place == 0 and len(tensor.dims) == 3 and tensor.ByteSize() >= TABLE_BYTES:
        return TABLE  # positions, cut to the text's length
    return SCALE if quantized or tensor.name.endswith(("_scale", "_zero_point")) else VECTOR


def _type(tensor: onnx.TensorProto, node: onnx.NodeProto, place: int) -> str:
    if node.op_type == "MatMulNBits" and place == 1:
        return f"i{next(a.i for a in node.attribute if a.name == 'bits')}"
    if tensor.name.endswith(".int4"):
        return "i4"  # two in a byte
    return TYPES.get(tensor.data_type, "other")


def _openvino(file: Path) -> Iterator[Piece]:
    from edgekit.formats.openvino_ir import weights

    for weight in weights(file):
        kind = VECTOR
        if weight.scale:
            kind = SCALE
        elif weight.reader == "MatMul":
            kind = MATRIX
        elif weight.reader in ("Gather", "Slice") and weight.bytes >= TABLE_BYTES:
            kind = TABLE
        yield Piece(kind, weight.type, weight.bytes, weight.user)


def _gguf(file: Path) -> Iterator[Piece]:
    from gguf import GGUFReader

    for tensor in GGUFReader(file).tensors:
        group = VECTOR
        if re.match(r"(token_embd|position_embd|token_types|output)\.weight", tensor.name):
            group = TABLE
        elif len(tensor.shape) >= 2:
            group = MATRIX
        yield Piece(group, tensor.tensor_type.name.lower(), int(tensor.n_bytes), tensor.name.removesuffix(".weight"))
