"""Embedding tables of an ONNX file in int8 and int4, looked up by operators that every runtime has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgekit.formats.onnx_graph import add_constant, replace_node
from edgekit.nn.qat import MIDDLE, int4_block

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["embedding_int4", "embedding_int8", "embedding_tables"]

HALF = (1e-3, 6e4)  # a largest scale for which the steps of half precision, 6e-8 at least, are fine enough


def embedding_tables(model: ir.Model) -> list[str]:
    """Names of the float matrices that a Gather reads rows from, larger than a kilobyte."""
    import onnx_ir as ir

    read = dict.fromkeys(node.inputs[0] for node in model.graph if node.op_type == "Gather")
    tensors = {value.name: value.const_value for value in read if value.is_initializer()}
    wanted = {name: t for name, t in tensors.items() if t.dtype == ir.DataType.FLOAT and len(t.shape) == 2}
    return [name for name, tensor in wanted.items() if tensor.size >= 1024]


def embedding_int8(model: ir.Model, table: str) -> None:
    """Gather(W, i) -> Cast(Gather(Q, i)) * Gather(s, i), with s the row's max |w| / 127: error at most s / 2."""
    weights = model.graph.initializers[table].const_value.numpy()
    scale = np.maximum(np.abs(weights).max(axis=1, keepdims=True), 1e-12).astype(np.float32) / np.float32(127)
    codes = np.clip(np.rint(weights / scale), -127, 127).astype(np.int8)
    stored = add_constant(model.graph, f"{table}.int8", codes), add_constant(model.graph, f"{table}.scale", scale)
    _replace_lookups(model.graph, table, lambda node: _int8_lookup(node, *stored))


def embedding_int4(model: ir.Model, table: str) -> None:
    """Gather(W, i) -> (unpack(Gather(Q, i)) - 8) * Gather(s, i): blocks along the row (`int4_block`; mostly of 32), one
    scale each, in half precision; a byte holds a value of a block's first half in its low bits and one of the second in
    its high ones.

    ONNX Runtime's own `GatherBlockQuantized` unpacks one value at a time, which takes twice to five times as long.
    Raises StageError for rows that are no whole blocks.
    """
    graph = model.graph
    weights = graph.initializers[table].const_value.numpy()
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
    numbers = {
        "int4": codes[..., : block // 2] | (codes[..., block // 2 :] << 4),
        "scale": stored,
        "low": np.uint8(15),
        "half": np.uint8(4),
        "middle": np.float32(MIDDLE),
        "rest": np.array([-1]),
    }
    constants = {name: add_constant(graph, f"{table}.{name}", np.asarray(n)) for name, n in numbers.items()}
    _replace_lookups(graph, table, lambda node: _int4_lookup(node, constants))


def _replace_lookups(graph: ir.Graph, table: str, lookup: Callable[[ir.Node], Sequence[ir.Node]]) -> None:
    """Put what `lookup` makes of each Gather of the table in its place; the table goes, unless others read it."""
    value = graph.initializers[table]
    for node, place in value.uses():
        if node.op_type == "Gather" and place == 0:
            replace_node(node, *lookup(node))
    if not value.uses():
        del graph.initializers[table]


def _int8_lookup(node: ir.Node, codes: ir.Value, scale: ir.Value) -> Sequence[ir.Node]:
    from onnx_ir.tape import Tape

    index, name, tape = node.inputs[1], node.name, Tape()
    rows = tape.op("Gather", [codes, index], name=f"{name}.rows")
    scales = tape.op("Gather", [scale, index], name=f"{name}.scales")
    values = tape.op("Cast", [rows], {"to": 1}, name=f"{name}.cast")
    tape.op("Mul", [values, scales], name=f"{name}.scaled")
    return list(tape.nodes)


def _int4_lookup(node: ir.Node, constants: dict[str, ir.Value]) -> Sequence[ir.Node]:
    """Of any index: the blocks are put side by side again by the index's own shape."""
    from onnx_ir.tape import Tape

    index, name, tape = node.inputs[1], node.name, Tape()
    rows = tape.op("Gather", [constants["int4"], index], name=f"{name}.rows")
    first = tape.op("BitwiseAnd", [rows, constants["low"]], name=f"{name}.first")
    second = tape.op("BitShift", [rows, constants["half"]], {"direction": "RIGHT"}, name=f"{name}.second")
    codes = tape.op("Concat", [first, second], {"axis": -1}, name=f"{name}.codes")
    values = tape.op("Cast", [codes], {"to": 1}, name=f"{name}.cast")
    centred = tape.op("Sub", [values, constants["middle"]], name=f"{name}.centred")
    stored = tape.op("Gather", [constants["scale"], index], name=f"{name}.stored")
    scales = tape.op("Cast", [stored], {"to": 1}, name=f"{name}.scales")
    blocks = tape.op("Mul", [centred, scales], name=f"{name}.blocks")
    shape = tape.op("Shape", [index], name=f"{name}.shape")
    shapes = tape.op("Concat", [shape, constants["rest"]], {"axis": 0}, name=f"{name}.shapes")
    tape.op("Reshape", [blocks, shapes], name=f"{name}.flat")
    return list(tape.nodes)
