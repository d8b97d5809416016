"""Exact rewrites of an exported encoder: nothing is computed that the output never reads.

A classifier reads the first token of the last layer. Of that layer only keys and values are needed at every position;
query, attention output, FFN and norms are needed at one. Position-wise operators commute with taking a position, so the
selection moves up through them, through the query of the attention, and stops where another reader needs all positions.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from edgekit.formats.onnx_graph import add_constant, constant, drop_unread, maker, readers

if TYPE_CHECKING:
    import onnx

__all__ = ["drop_reshapes", "first_token_only"]

UNARY = ("Erf", "Gelu", "Relu", "Sigmoid", "Tanh", "Sqrt")
BINARY = ("Add", "Sub", "Mul", "Div", "Pow")
ATTENTION = "MultiHeadAttention"


def drop_reshapes(model: onnx.ModelProto) -> int:
    """Take out the Reshapes beside each MultiHeadAttention: torch splits the last axis into heads, the operator
    takes it whole, so that they cancel. Returns how many nodes went, with those that computed only their shapes."""
    graph = model.graph
    before = len(graph.node)
    for attention in [n for n in graph.node if n.op_type == ATTENTION]:
        for place in range(3):
            attention.input[place] = _above_reshapes(graph, attention.input[place])
        last = _below_reshapes(graph, attention.output[0])
        if last != attention.output[0]:
            _rename_readers(graph, last, attention.output[0])
    drop_unread(graph)
    return before - len(graph.node)


def first_token_only(model: onnx.ModelProto) -> int:
    """Move the selection of the first token up to where all positions are needed. Returns how many nodes then compute
    one position instead of all; 0 where the output does not read the first token alone (mean pooling, for one)."""
    graph = model.graph
    select = next((n for n in reversed(graph.node) if _selects_first(graph, n)), None)
    if select is None:
        return 0
    narrowed = _narrowable(graph, select)
    if not narrowed:
        return 0
    _narrow(graph, narrowed)
    return len(narrowed)


def _selects_first(graph: onnx.GraphProto, node: onnx.NodeProto) -> bool:
    from onnx import helper

    if node.op_type != "Gather" or {a.name: helper.get_attribute_value(a) for a in node.attribute}.get("axis", 0) != 1:
        return False
    index = constant(graph, node.input[1])
    return index is not None and index.ndim == 0 and int(index) == 0


def _narrowable(graph: onnx.GraphProto, select: onnx.NodeProto) -> list[tuple[onnx.NodeProto, list[str]]]:
    """The nodes whose every reader needs one position only, in the order of the graph, each with the inputs of which it
    then needs one position."""
    flat = {t.name for t in graph.initializer if len(t.dims) <= 1}
    matrices = {t.name for t in graph.initializer if len(t.dims) == 2}
    reads = Counter(name for node in graph.node for name in node.input)
    outputs = {value.name for value in graph.output}
    found: list[tuple[onnx.NodeProto, list[str]]] = []
    narrow_reads = Counter({select.input[0]: 1})
    for node in reversed(graph.node):
        name = node.output[0]
        if not narrow_reads[name] or name in outputs or narrow_reads[name] != reads[name]:
            continue
        if through := _through(node, flat, matrices):
            found.append((node, through))
            narrow_reads.update(through)
    return found[::-1]


def _through(node: onnx.NodeProto, flat: set[str], matrices: set[str]) -> list[str]:
    """The inputs of which one position is enough for one of the output; none where the node mixes positions."""
    if node.op_type in UNARY or (node.op_type == "LayerNormalization" and set(node.input[1:]) <= flat):
        return [node.input[0]]
    if node.op_type in BINARY and not set(node.input) & matrices:
        return [name for name in node.input if name not in flat]
    if node.op_type == "MatMul" and node.input[1] in matrices:
        return [node.input[0]]
    biased = len(node.input) > 5 and bool(node.input[5])  # by pairs of positions
    return [node.input[0]] if node.op_type == ATTENTION and not biased else []


def _narrow(graph: onnx.GraphProto, nodes: list[tuple[onnx.NodeProto, list[str]]]) -> None:
    """Feed `nodes` the first position of what comes from outside of them."""
    from onnx import helper

    inside = {node.output[0] for node, _ in nodes}
    index = "first_token.index"
    add_constant(graph, index, np.zeros(1, np.int64))
    made: dict[str, str] = {}
    for node, through in nodes:
        for place, name in enumerate(node.input):
            if name in inside or name not in through or (node.op_type == ATTENTION and place > 0):
                continue
            if name not in made:
                made[name] = f"{name}.first_token"
                gather = helper.make_node("Gather", [name, index], [made[name]], f"first_token.{len(made)}", axis=1)
                graph.node.insert(list(graph.node).index(node), gather)
            node.input[place] = made[name]


def _above_reshapes(graph: onnx.GraphProto, name: str) -> str:
    """What the Reshapes above `name` split and put together again: the output of a linear layer. `name` itself where
    something else comes first, such as rotated queries, which are split there."""
    above = name
    while (node := maker(graph, above)) is not None and node.op_type == "Reshape":
        above = node.input[0]
    return above if node is not None and _is_linear(graph, node) else name


def _is_linear(graph: onnx.GraphProto, node: onnx.NodeProto) -> bool:
    """Whether it is a product with a constant matrix, or adds a constant vector to one."""
    if node.op_type == "MatMul":
        matrix = constant(graph, node.input[1])
        return matrix is not None and matrix.ndim == 2
    if node.op_type != "Add":
        return False
    products = [maker(graph, name) for name in node.input]
    return any(product is not None and _is_linear(graph, product) for product in products if product is not node)


def _below_reshapes(graph: onnx.GraphProto, name: str) -> str:
    """The last of a chain of Reshapes that follows `name`, each read by nothing else."""
    while len(found := readers(graph, name)) == 1 and found[0].op_type == "Reshape":
        name = found[0].output[0]
    return name


def _rename_readers(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new
