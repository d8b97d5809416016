"""Embedding tables of an ONNX file in int8 and int4, looked up by operators that every runtime has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.formats.onnx_graph import add_constant
from edgekit.nn.qat import MIDDLE, int4_block

if TYPE_CHECKING:
    import onnx

__all__ = ["embedding_int4", "embedding_int8", "embedding_tables", "take_initializer"]

HALF = (1e-3, 6e4)  # a largest scale for which the steps of half precision, 6e-8 at least, are fine enough


def embedding_tables(file: Path) -> list[str]:
    """Names of the float matrices that a Gather reads rows from, larger than a kilobyte."""
    import onnx

    graph = onnx.load(str(file)).graph
    sizes = {t.name: t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 2}
    found = [n.input[0] for n in graph.node if n.op_type == "Gather" and n.input[0] in sizes]
    return [name for name in dict.fromkeys(found) if np.prod(sizes[name].dims) >= 1024]


def embedding_int8(model: onnx.ModelProto, table: str) -> None:
    """Gather(W, i) -> Cast(Gather(Q, i)) * Gather(s, i), with s the row's max |w| / 127: error at most s / 2."""
    weights = take_initializer(model, table)
    scale = np.maximum(np.abs(weights).max(axis=1, keepdims=True), 1e-12).astype(np.float32) / np.float32(127)
    add_constant(model.graph, f"{table}.int8", np.clip(np.rint(weights / scale), -127, 127).astype(np.int8))
    add_constant(model.graph, f"{table}.scale", scale)
    for node in _lookups(model, table):
        _replace(model, node, _int8_lookup(node, table))


def embedding_int4(model: onnx.ModelProto, table: str) -> None:
    """Gather(W, i) -> (unpack(Gather(Q, i)) - 8) * Gather(s, i): blocks along the row (`int4_block`; mostly of 32), one
    scale each, in half precision; a byte holds a value of a block's first half in its low bits and one of the second in
    its high ones.

    ONNX Runtime's own `GatherBlockQuantized` unpacks one value at a time, which takes twice to five times as long.
    Raises StageError for rows that are no whole blocks.
    """
    weights = take_initializer(model, table)
    rows, width = weights.shape
    block = int4_block(width)
    blocks = weights.reshape(rows, width // block, block)
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=2)[..., None], axis=2)
    scale = (extreme / -MIDDLE).astype(np.float32)  # the largest lands on -8: the grid's longer side is used
    largest = float(np.abs(scale).max())
    stored = scale.astype(np.float16 if HALF[0] <= largest <= HALF[1] else np.float32)
    exact = stored.astype(np.float32)
    values = np.clip(np.rint(blocks / np.where(exact == 0, 1, exact)), -MIDDLE, MIDDLE - 1)
    codes = (values + MIDDLE).astype(np.uint8)
    add_constant(model.graph, f"{table}.int4", codes[..., : block // 2] | (codes[..., block // 2 :] << 4))
    add_constant(model.graph, f"{table}.scale", stored)
    numbers = {"low": np.uint8(15), "half": np.uint8(4), "middle": np.float32(MIDDLE), "rest": np.array([-1])}
    for name, number in numbers.items():
        add_constant(model.graph, f"{table}.{name}", np.asarray(number))
    for node in _lookups(model, table):
        _replace(model, node, _int4_lookup(node, table))


def take_initializer(model: onnx.ModelProto, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Its values; it is no longer in the model."""
    from onnx import numpy_helper

    tensor = next(t for t in model.graph.initializer if t.name == name)
    array: np.ndarray[Any, np.dtype[np.float32]] = numpy_helper.to_array(tensor).astype(np.float32)
    model.graph.initializer.remove(tensor)
    return array


def _int8_lookup(node: onnx.NodeProto, table: str) -> list[onnx.NodeProto]:
    from onnx import helper

    index, output = node.input[1], node.output[0]
    return [
        helper.make_node("Gather", [f"{table}.int8", index], [f"{output}.q"], f"{node.name}.rows"),
        helper.make_node("Gather", [f"{table}.scale", index], [f"{output}.s"], f"{node.name}.scales"),
        helper.make_node("Cast", [f"{output}.q"], [f"{output}.f"], f"{node.name}.cast", to=1),
        helper.make_node("Mul", [f"{output}.f", f"{output}.s"], [output], f"{node.name}.scaled"),
    ]


def _int4_lookup(node: onnx.NodeProto, table: str) -> list[onnx.NodeProto]:
    """Of any index: the blocks are put side by side again by the index's own shape."""
    from onnx import helper

    index, output = node.input[1], node.output[0]
    steps: tuple[tuple[str, list[str], str, dict[str, Any]], ...] = (
        ("Gather", [f"{table}.int4", index], "rows", {}),
        ("BitwiseAnd", [f"{output}.rows", f"{table}.low"], "first", {}),
        ("BitShift", [f"{output}.rows", f"{table}.half"], "second", {"direction": "RIGHT"}),
        ("Concat", [f"{output}.first", f"{output}.second"], "codes", {"axis": -1}),
        ("Cast", [f"{output}.codes"], "cast", {"to": 1}),
        ("Sub", [f"{output}.cast", f"{table}.middle"], "centred", {}),
        ("Gather", [f"{table}.scale", index], "stored", {}),
        ("Cast", [f"{output}.stored"], "scales", {"to": 1}),
        ("Mul", [f"{output}.centred", f"{output}.scales"], "blocks", {}),
        ("Shape", [index], "shape", {}),
        ("Concat", [f"{output}.shape", f"{table}.rest"], "shapes", {"axis": 0}),
    )
    made = [
        helper.make_node(kind, inputs, [f"{output}.{name}"], f"{node.name}.{name}", **attributes)
        for kind, inputs, name, attributes in steps
    ]
    flat = helper.make_node("Reshape", [f"{output}.blocks", f"{output}.shapes"], [output], f"{node.name}.flat")
    return [*made, flat]


def _lookups(model: onnx.ModelProto, table: str) -> list[onnx.NodeProto]:
    return [n for n in model.graph.node if n.op_type == "Gather" and n.input[0] == table]


def _replace(model: onnx.ModelProto, node: onnx.NodeProto, others: list[onnx.NodeProto]) -> None:
    position = list(model.graph.node).index(node)
    model.graph.node.remove(node)
    for offset, other in enumerate(others):
        model.graph.node.insert(position + offset, other)
