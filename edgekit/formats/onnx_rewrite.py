"""Exact rewrites of an exported encoder: nothing is computed that the output never reads.

A classifier reads the first token of the last layer. Of that layer only keys and values are needed at every position;
query, attention output, FFN and norms are needed at one. Position-wise operators commute with taking a position, so the
selection moves up through them, through the query of the attention, and stops where another reader needs all positions.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from edgekit.formats.onnx_graph import add_constant, constant, drop_unread, input_at, only_reader

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["drop_reshapes", "first_token_only"]

UNARY = ("Erf", "Gelu", "Relu", "Sigmoid", "Tanh", "Sqrt")
BINARY = ("Add", "Sub", "Mul", "Div", "Pow")
ATTENTION = "MultiHeadAttention"


def drop_reshapes(model: ir.Model) -> int:
    """Take out the Reshapes beside each MultiHeadAttention: torch splits the last axis into heads, the operator
    takes it whole, so that they cancel. Returns how many nodes went, with those that computed only their shapes."""
    before = len(model.graph)
    for attention in [n for n in model.graph if n.op_type == ATTENTION]:
        for place in range(3):
            attention.replace_input_with(place, _above_reshapes(attention.inputs[place]))
        attended = attention.outputs[0]
        last = _below_reshapes(attended)
        if last is not attended:
            last.replace_all_uses_with(attended)
    drop_unread(model)
    return before - len(model.graph)


def first_token_only(model: ir.Model) -> int:
    """Move the selection of the first token up to where all positions are needed. Returns how many nodes then compute
    one position instead of all; 0 where the output does not read the first token alone (mean pooling, for one)."""
    select = next((n for n in reversed(model.graph) if _selects_first(n)), None)
    if select is None:
        return 0
    narrowed = _narrowable(model.graph, select)
    if narrowed:
        _narrow(model.graph, narrowed)
    return len(narrowed)


def _selects_first(node: ir.Node) -> bool:
    if node.op_type != "Gather" or node.attributes.get_int("axis", 0) != 1:
        return False
    index = constant(node.inputs[1])
    return index is not None and index.ndim == 0 and int(index) == 0


def _narrowable(graph: ir.Graph, select: ir.Node) -> list[tuple[ir.Node, list[ir.Value]]]:
    """The nodes whose every reader needs one position only, in the order of the graph, each with the inputs of which it
    then needs one position."""
    found: list[tuple[ir.Node, list[ir.Value]]] = []
    narrow_reads = Counter({select.inputs[0]: 1})
    for node in reversed(graph):
        made = node.outputs[0]
        if not narrow_reads[made] or made.is_graph_output() or narrow_reads[made] != len(made.uses()):
            continue
        if through := _through(node):
            found.append((node, through))
            narrow_reads.update(through)
    return found[::-1]


def _through(node: ir.Node) -> list[ir.Value]:
    """The inputs of which one position is enough for one of the output; none where the node mixes positions."""
    inputs = [value for value in node.inputs if value is not None]
    flat = [value for value in inputs if _axes(value) in (0, 1)]
    matrices = [value for value in inputs if _axes(value) == 2]
    if node.op_type in UNARY or (node.op_type == "LayerNormalization" and len(flat) == len(inputs) - 1):
        return inputs[:1]
    if node.op_type in BINARY and not matrices:
        return [value for value in inputs if value not in flat]
    if node.op_type == "MatMul" and _axes(inputs[1]) == 2:
        return inputs[:1]
    biased = input_at(node, 5) is not None  # by pairs of positions
    return inputs[:1] if node.op_type == ATTENTION and not biased else []


def _axes(value: ir.Value) -> int | None:
    """How many axes an initializer has; None for another value."""
    return len(value.const_value.shape) if value.is_initializer() else None


def _narrow(graph: ir.Graph, nodes: list[tuple[ir.Node, list[ir.Value]]]) -> None:
    """Feed `nodes` the first position of what comes from outside of them."""
    import onnx_ir as ir

    inside = {node.outputs[0] for node, _ in nodes}
    index = add_constant(graph, "first_token.index", np.zeros(1, np.int64))
    made: dict[ir.Value, ir.Value] = {}
    for node, through in nodes:
        for place, value in enumerate(node.inputs):
            if value in inside or value not in through or (node.op_type == ATTENTION and place > 0):
                continue
            if value not in made:
                made[value] = ir.val(f"{value.name}.first_token")
                name = f"first_token.{len(made)}"
                gather = ir.node("Gather", [value, index], {"axis": 1}, outputs=[made[value]], name=name)
                graph.insert_before(node, gather)
            node.replace_input_with(place, made[value])


def _above_reshapes(value: ir.Value) -> ir.Value:
    """What the Reshapes above `value` split and put together again: the output of a linear layer. `value` itself where
    something else comes first, such as rotated queries, which are split there."""
    above = value
    while (node := above.producer()) is not None and node.op_type == "Reshape":
        above = node.inputs[0]
    return above if node is not None and _is_linear(node) else value


def _is_linear(node: ir.Node) -> bool:
    """Whether it is a product with a constant matrix, or adds a constant vector to one."""
    if node.op_type == "MatMul":
        matrix = constant(node.inputs[1])
        return matrix is not None and matrix.ndim == 2
    if node.op_type != "Add":
        return False
    products = [value.producer() for value in node.inputs]
    return any(product is not None and _is_linear(product) for product in products)


def _below_reshapes(value: ir.Value) -> ir.Value:
    """The last of a chain of Reshapes that follows `value`, each read by nothing else; `value` itself where the model
    gives the last one out."""
    last = value
    while (node := only_reader(last)) is not None and node.op_type == "Reshape":
        last = node.outputs[0]
    return value if last.is_graph_output() else last
