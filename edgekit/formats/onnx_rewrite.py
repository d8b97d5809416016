"""Exact rewrites of an exported encoder: nothing is computed that the output never reads.

A classifier reads the first token of the last layer. Of that layer only keys and values are needed at every position;
query, attention output, FFN and norms are needed at one. Position-wise operators commute with taking a position, so the
selection moves up through them, through the query of the attention, and stops where another reader needs all positions.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

__all__ = ["drop_reshapes", "drop_unread", "first_token_only"]

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
    from onnx import helper, numpy_helper

    if node.op_type != "Gather" or {a.name: helper.get_attribute_value(a) for a in node.attribute}.get("axis", 0) != 1:
        return False
    index = next((t for t in graph.initializer if t.name == node.input[1]), None)
    return index is not None and not index.dims and int(numpy_helper.to_array(index)) == 0


def _narrowable(graph: onnx.GraphProto, select: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The nodes whose every reader needs one position only, in the order of the graph."""
    flat = {t.name for t in graph.initializer if len(t.dims) <= 1}
    matrices = {t.name for t in graph.initializer if len(t.dims) == 2}
    readers = _readers(graph)
    outputs = {value.name for value in graph.output}
    found: list[onnx.NodeProto] = []
    wanted = {select.input[0]}
    narrow_readers = Counter({select.input[0]: 1})
    for node in reversed(graph.node):
        name = node.output[0]
        if name not in wanted or name in outputs or narrow_readers[name] != readers[name]:
            continue
        through = _through(node, flat, matrices)
        if not through:
            continue
        found.append(node)
        wanted.update(through)
        narrow_readers.update(through)
    return found[::-1]


def _through(node: onnx.NodeProto, flat: set[str], matrices: set[str]) -> list[str]:
    """The inputs of which one position is enough for one of the output; none where the node mixes positions."""
    if node.op_type in UNARY or (node.op_type == "LayerNormalization" and set(node.input[1:]) <= flat):
        return [node.input[0]]
    if node.op_type in BINARY and not set(node.input) & matrices:
        return [name for name in node.input if name not in flat]
    if node.op_type == "MatMul" and node.input[1] in matrices:
        return [node.input[0]]
    return [node.input[0]] if node.op_type == ATTENTION else []


def _narrow(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Feed `nodes` the first position of what comes from outside of them."""
    from onnx import helper, numpy_helper

    flat = {t.name for t in graph.initializer if len(t.dims) <= 1}
    matrices = {t.name for t in graph.initializer if len(t.dims) == 2}
    inside = {node.output[0] for node in nodes}
    index = "first_token.index"
    graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.int64), index))
    made: dict[str, str] = {}
    for node in nodes:
        crossing = set(_through(node, flat, matrices)) - inside
        for place, name in enumerate(node.input):
            if name not in crossing or (node.op_type == ATTENTION and place > 0):
                continue
            if name not in made:
                made[name] = f"{name}.first_token"
                gather = helper.make_node("Gather", [name, index], [made[name]], f"first_token.{len(made)}", axis=1)
                graph.node.insert(list(graph.node).index(node), gather)
            node.input[place] = made[name]


def _above_reshapes(graph: onnx.GraphProto, name: str) -> str:
    makers = {n.output[0]: n for n in graph.node}
    while name in makers and makers[name].op_type == "Reshape":
        name = makers[name].input[0]
    return name


def _below_reshapes(graph: onnx.GraphProto, name: str) -> str:
    """The last of a chain of Reshapes that follows `name`, each read by nothing else."""
    while True:
        readers = [n for n in graph.node if name in n.input]
        if len(readers) != 1 or readers[0].op_type != "Reshape":
            return name
        name = readers[0].output[0]


def _rename_readers(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new


def drop_unread(graph: onnx.GraphProto) -> None:
    """Remove nodes and initializers that nothing reads."""
    outputs = {value.name for value in graph.output}
    while True:
        read = {name for node in graph.node for name in node.input} | outputs
        unread = [n for n in graph.node if not read & set(n.output)]
        if not unread:
            break
        for node in unread:
            graph.node.remove(node)
    read = {name for node in graph.node for name in node.input}
    for tensor in [t for t in graph.initializer if t.name not in read]:
        graph.initializer.remove(tensor)


def _readers(graph: onnx.GraphProto) -> Counter[str]:
    return Counter(name for node in graph.node for name in node.input)
