"""Exact rewrites of an exported encoder: what does not depend on the text is computed once, and GELU by one operator.

Positions are a table that is cut to the text's length, not looked up; a single segment is a constant row, which is
added to that table beforehand. Rows past the longest input that the task has are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekit.formats.onnx_graph import add_constant, constant, only_reader, replace_constant, replace_node

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["fold_positions", "fuse_gelu"]

MOVES = ("Expand", "GatherElements", "Slice", "Unsqueeze", "Reshape")  # repeat or leave out, but make no new values


def fuse_gelu(model: ir.Model) -> int:
    """x * (0.5 * (1 + erf(x / sqrt 2))) as `com.microsoft::Gelu`, which is what ONNX Runtime would fuse it to, had the
    products around it not become int8 by then. Returns how many.

    Source: onnxscript.rewriter.pattern, which leaves alone what others read, too.
    """
    from onnxscript.rewriter.pattern import RewriteRule

    return int(RewriteRule(_gelu_by_erf, _gelu).apply_to_model(model, commute=True))


def _gelu_by_erf(op: Any, x: Any) -> Any:
    return op.Mul(x, op.Mul(0.5, op.Add(op.Erf(op.Div(x, 2**0.5)), 1.0)))


def _gelu(op: Any, x: Any) -> Any:
    return op.Gelu(x, _domain="com.microsoft")


def fold_positions(model: ir.Model, longest: int) -> int:
    """Look nothing up that is known: segments that are all the same, positions that count from zero to `longest`.
    Returns how many lookups went; 0 where positions depend on the text (RoBERTa's count past padding)."""
    found = 0
    for gather in [n for n in model.graph if n.op_type == "Gather"]:
        table = constant(gather.inputs[0])
        if table is None or table.ndim != 2:
            continue
        if (row := _one_value(gather.inputs[1])) is not None:
            found += _constant_row(model.graph, gather, table[row])
        elif (cut := _counted(gather.inputs[1])) is not None:
            _cut_table(model.graph, gather, cut, table[:longest])
            found += 1
    if found:
        _add_rows_beforehand(model.graph)
    return found


def _one_value(index: ir.Value) -> int | None:
    """The value that an index has everywhere, where it is made of a constant of one value."""
    while (node := index.producer()) is not None and node.op_type in MOVES:
        index = node.inputs[0]
    values = constant(index)
    return int(values.flat[0]) if values is not None and values.size and (values == values.flat[0]).all() else None


def _counted(index: ir.Value) -> ir.Node | None:
    """The Slice that cuts a constant 0, 1, 2, ... (1, positions) to the text's length, where that is the index."""
    node = index.producer()
    if node is None or node.op_type != "Slice":
        return None
    values = constant(node.inputs[0])
    counts = values is not None and values.ndim == 2 and (values == np.arange(values.shape[1])[None]).all()
    axes = constant(node.inputs[3]) if len(node.inputs) > 3 else None
    return node if counts and axes is not None and axes.tolist() == [1] else None


def _constant_row(graph: ir.Graph, gather: ir.Node, row: NDArray[Any]) -> int:
    """Put the row in the place of the lookup, where all its readers add it; broadcasting does the rest."""
    looked_up = gather.outputs[0]
    if looked_up.is_graph_output() or any(n.op_type != "Add" for n in looked_up.consumers()):
        return 0
    looked_up.replace_all_uses_with(add_constant(graph, looked_up.name, row))
    graph.remove(gather, safe=True)
    return 1


def _cut_table(graph: ir.Graph, gather: ir.Node, cut: ir.Node, rows: NDArray[Any]) -> None:
    """Slice the rows themselves, (1, positions, width), as the index was sliced."""
    import onnx_ir as ir

    table = add_constant(graph, f"{gather.inputs[0].name}.rows", rows[None])
    replace_node(gather, ir.node("Slice", [table, *cut.inputs[1:]], name=gather.name))


def _add_rows_beforehand(graph: ir.Graph) -> None:
    """(x + row) + cut(table) -> x + cut(table + row)."""
    for node in [n for n in graph if n.op_type == "Add"]:
        alone = [value for value in node.inputs if only_reader(value) is not None]
        makers = [maker for value in alone if (maker := value.producer()) is not None]
        cut = next((m for m in makers if m.op_type == "Slice"), None)
        total = next((m for m in makers if m.op_type == "Add"), None)
        if cut is None or total is None or only_reader(cut.inputs[0]) is None:
            continue
        table = constant(cut.inputs[0])
        row = next((v for v in total.inputs if (c := constant(v)) is not None and c.ndim == 1), None)
        if table is None or row is None:
            continue
        replace_constant(cut.inputs[0], table + constant(row))
        rest = next(value for value in total.inputs if value is not row)
        total.outputs[0].replace_all_uses_with(rest)
        graph.remove(total, safe=True)
