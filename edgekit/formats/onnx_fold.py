"""Exact rewrites of an exported encoder: what does not depend on the text is computed once, and GELU by one operator.

Positions are a table that is cut to the text's length, not looked up; a single segment is a constant row, which is
added to that table beforehand. Rows past the longest input that the task has are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekit.formats.onnx_graph import add_constant, constant, maker, readers, replace_constant

if TYPE_CHECKING:
    import onnx

__all__ = ["fold_positions", "fuse_gelu"]

MOVES = ("Expand", "GatherElements", "Slice", "Unsqueeze", "Reshape")  # repeat or leave out, but make no new values


def fuse_gelu(model: onnx.ModelProto) -> int:
    """x * (0.5 * (1 + erf(x / sqrt 2))) as `com.microsoft::Gelu`, which is what ONNX Runtime would fuse it to, had the
    products around it not become int8 by then. Returns how many."""
    from onnx import helper

    graph, found = model.graph, 0
    for erf in [n for n in graph.node if n.op_type == "Erf"]:
        chain = _gelu_around(graph, erf)
        if chain is None:
            continue
        source, nodes = chain
        place = list(graph.node).index(nodes[0])
        gelu = helper.make_node("Gelu", [source], list(nodes[-1].output), f"gelu.{found}", domain="com.microsoft")
        for node in nodes:
            graph.node.remove(node)
        graph.node.insert(place, gelu)
        found += 1
    return found


def fold_positions(model: onnx.ModelProto, longest: int) -> int:
    """Look nothing up that is known: segments that are all the same, positions that count from zero to `longest`.
    Returns how many lookups went; 0 where positions depend on the text (RoBERTa's count past padding)."""
    graph, found = model.graph, 0
    for gather in [n for n in graph.node if n.op_type == "Gather"]:
        table = constant(graph, gather.input[0])
        if table is None or table.ndim != 2:
            continue
        if (row := _one_value(graph, gather.input[1])) is not None:
            found += _constant_row(graph, gather, table[row])
        elif (cut := _counted(graph, gather.input[1])) is not None:
            found += _cut_table(graph, gather, cut, table, longest)
    if found:
        _add_rows_beforehand(graph)
    return found


def _gelu_around(graph: onnx.GraphProto, erf: onnx.NodeProto) -> tuple[str, list[onnx.NodeProto]] | None:
    """GELU's input and its five nodes in order; None where the operators around `erf` compute something else."""
    divide = maker(graph, erf.input[0])
    plus = _only_reader(graph, erf.output[0], "Add")
    half = _only_reader(graph, plus.output[0], "Mul") if plus else None
    last = _only_reader(graph, half.output[0], "Mul") if half else None
    if divide is None or divide.op_type != "Div" or plus is None or half is None or last is None:
        return None
    source = divide.input[0]
    wanted = ((divide, divide.input[0], 2**0.5), (plus, erf.output[0], 1.0), (half, plus.output[0], 0.5))
    exact = all(_scalar_beside(graph, node, name) == np.float32(value) for node, name, value in wanted)
    return (source, [divide, erf, plus, half, last]) if exact and source in last.input else None


def _scalar_beside(graph: onnx.GraphProto, node: onnx.NodeProto, name: str) -> np.float32 | None:
    other = next((i for i in node.input if i != name), "")
    value = constant(graph, other)
    return np.float32(value.item()) if value is not None and value.size == 1 else None


def _one_value(graph: onnx.GraphProto, index: str) -> int | None:
    """The value that an index has everywhere, where it is made of a constant of one value."""
    node = maker(graph, index)
    while node is not None and node.op_type in MOVES:
        index = node.input[0]
        node = maker(graph, index)
    values = constant(graph, index)
    return int(values.flat[0]) if values is not None and values.size and (values == values.flat[0]).all() else None


def _counted(graph: onnx.GraphProto, index: str) -> onnx.NodeProto | None:
    """The Slice that cuts a constant 0, 1, 2, ... (1, positions) to the text's length, where that is the index."""
    node = maker(graph, index)
    if node is None or node.op_type != "Slice":
        return None
    values = constant(graph, node.input[0])
    counts = values is not None and values.ndim == 2 and (values == np.arange(values.shape[1])[None]).all()
    axes = constant(graph, node.input[3]) if len(node.input) > 3 else None
    return node if counts and axes is not None and axes.tolist() == [1] else None


def _constant_row(graph: onnx.GraphProto, gather: onnx.NodeProto, row: NDArray[Any]) -> int:
    """Put the row in the place of the lookup, where all its readers add it; broadcasting does the rest."""
    if any(n.op_type != "Add" for n in readers(graph, gather.output[0])):
        return 0
    add_constant(graph, gather.output[0], row)
    graph.node.remove(gather)
    return 1


def _cut_table(
    graph: onnx.GraphProto, gather: onnx.NodeProto, cut: onnx.NodeProto, table: NDArray[Any], longest: int
) -> int:
    """Slice the rows themselves, (1, positions, width), as the index was sliced."""
    from onnx import helper

    name = f"{gather.input[0]}.rows"
    add_constant(graph, name, table[:longest][None])
    made = helper.make_node("Slice", [name, *cut.input[1:]], list(gather.output), gather.name)
    graph.node.insert(list(graph.node).index(gather), made)
    graph.node.remove(gather)
    return 1


def _add_rows_beforehand(graph: onnx.GraphProto) -> None:
    """(x + row) + cut(table) -> x + cut(table + row)."""
    for node in [n for n in graph.node if n.op_type == "Add"]:
        cuts = [m for name in node.input if (m := maker(graph, name)) is not None and m.op_type == "Slice"]
        sums = [m for name in node.input if (m := maker(graph, name)) is not None and m.op_type == "Add"]
        table = constant(graph, cuts[0].input[0]) if cuts else None
        if table is None or not sums:
            continue
        row = next((i for i in sums[0].input if (c := constant(graph, i)) is not None and c.ndim == 1), "")
        values = constant(graph, row)
        if values is None or _only_reader(graph, sums[0].output[0], "Add") is None:
            continue
        replace_constant(graph, cuts[0].input[0], table + values)
        rest = next(name for name in sums[0].input if name != row)
        node.input[list(node.input).index(sums[0].output[0])] = rest
        graph.node.remove(sums[0])


def _only_reader(graph: onnx.GraphProto, name: str, operator: str) -> onnx.NodeProto | None:
    found = readers(graph, name)
    return found[0] if len(found) == 1 and found[0].op_type == operator else None
