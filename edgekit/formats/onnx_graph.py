"""What the rewrites of an ONNX graph share, in `onnx_ir`: constants, inputs, and what a file need not say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "add_constant",
    "constant",
    "drop_unread",
    "forget_origin",
    "input_at",
    "load_model",
    "name_by_module",
    "only_reader",
    "replace_constant",
    "replace_node",
    "save_model",
]

SCOPES = "pkg.torch.onnx.name_scopes"  # of torch's exporter: the modules around a node, outermost first, then its name
NAMED = ("MatMul", "Gemm", "Gather", "MultiHeadAttention")


def load_model(file: Path) -> ir.Model:
    """The graph with all its tensors in memory, so that the file may go."""
    import onnx_ir as ir

    return ir.external_data.load_to_model(ir.load(str(file)))


def save_model(model: ir.Model, file: Path) -> None:
    """Write one file. Types and shapes of initializers go, which would be said again in `value_info`."""
    import onnx_ir as ir

    for value in model.graph.initializers.values():
        value.type = value.shape = None
    ir.save(model, str(file))


def input_at(node: ir.Node, place: int) -> ir.Value | None:
    """A node's input; None where it is left out."""
    return node.inputs[place] if place < len(node.inputs) else None


def only_reader(value: ir.Value) -> ir.Node | None:
    """The node that alone reads `value`, once; None where there are others, or the model gives the value out."""
    uses = value.uses()
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """An initializer's values; None for an input, what a node makes, and what is left out."""
    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    values: NDArray[Any] = value.const_value.numpy()
    return values


def add_constant(graph: ir.Graph, name: str, values: NDArray[Any]) -> ir.Value:
    """A new initializer."""
    import onnx_ir as ir

    value = ir.val(name, const_value=ir.tensor(np.ascontiguousarray(values), name=name))
    graph.register_initializer(value)
    return value


def replace_constant(value: ir.Value, values: NDArray[Any]) -> None:
    """Other values for an initializer that is there, for all that read it."""
    import onnx_ir as ir

    value.const_value = ir.tensor(np.ascontiguousarray(values), name=value.name)
    value.dtype, value.shape = value.const_value.dtype, value.const_value.shape


def replace_node(node: ir.Node, *others: ir.Node) -> None:
    """Put `others` in a node's place: the last one's outputs take over the names and the readers of the node's."""
    import onnx_ir as ir

    old, new = node.outputs, others[-1].outputs
    ir.convenience.replace_nodes_and_values(node.graph, node, [node], others, old, new)


def forget_origin(model: ir.Model) -> None:
    """Drop what only costs bytes: types and shapes between inputs and outputs, which ONNX Runtime infers anew and its
    quantizer trips over, and what the exporter and rewrite rules say of their own: half a megabyte on a device for
    nothing."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(model)
    graph = model.graph
    graph.name = "edgekit"
    made = [value for node in graph for value in node.outputs]
    for value in (*graph.inputs, *graph.initializers.values(), *made):
        value.metadata_props.clear()
        if not value.is_graph_input() and not value.is_graph_output():
            value.type = value.shape = None


def name_by_module(graph: ir.Graph) -> None:
    """Call products, lookups and attention what the model calls the module that they come from, where the exporter
    says: `bert.encoder.layer.0.attention.self.query` can be excluded, or found in a profile."""
    import ast

    for node in graph:
        if node.op_type not in NAMED:
            continue
        scopes = [scope for scope in ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))[:-1] if scope]
        if scopes:
            node.name = scopes[-1].removeprefix("model.")
    seen: set[str] = set()
    for node in graph:  # a module may compute several products
        if node.name in seen:
            node.name = f"{node.name}/{node.outputs[0].name}"
        seen.add(node.name)


def drop_unread(model: ir.Model) -> None:
    """Remove nodes and initializers that nothing reads."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)
