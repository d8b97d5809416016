"""Finding one's way in an ONNX graph: who makes a value, who reads it, and what a constant is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

__all__ = [
    "add_constant",
    "constant",
    "drop_unread",
    "forget_origin",
    "import_domains",
    "maker",
    "name_by_module",
    "readers",
    "replace_constant",
]

SCOPES = "pkg.torch.onnx.name_scopes"  # of torch's exporter: the modules around a node, outermost first, then its name
NAMED = ("MatMul", "Gemm", "Gather", "MultiHeadAttention")


def maker(graph: onnx.GraphProto, name: str) -> onnx.NodeProto | None:
    """The node whose output `name` is; None for an input or a constant."""
    return next((node for node in graph.node if name in node.output), None)


def readers(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    """The nodes that `name` is an input of, in order."""
    return [node for node in graph.node if name in node.input]


def constant(graph: onnx.GraphProto, name: str) -> NDArray[Any] | None:
    """An initializer's values; None where `name` is none."""
    from onnx import numpy_helper

    tensor = next((t for t in graph.initializer if t.name == name), None)
    return None if tensor is None else numpy_helper.to_array(tensor)


def add_constant(graph: onnx.GraphProto, name: str, values: NDArray[Any]) -> None:
    """A new initializer."""
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))


def replace_constant(graph: onnx.GraphProto, name: str, values: NDArray[Any]) -> None:
    """Other values for an initializer that is there."""
    graph.initializer.remove(next(t for t in graph.initializer if t.name == name))
    add_constant(graph, name, values)


def forget_origin(model: onnx.ModelProto) -> None:
    """Drop what only costs bytes: `value_info`, which ONNX Runtime infers anew and its quantizer trips over, and what
    each node says of its origin in Python: half a megabyte on a device for nothing."""
    del model.graph.value_info[:]
    model.graph.name = "edgekit"
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""


def name_by_module(graph: onnx.GraphProto) -> None:
    """Call products, lookups and attention what the model calls the module that they come from, where the exporter
    says: `bert.encoder.layer.0.attention.self.query` can be excluded, or found in a profile."""
    import ast

    for node in graph.node:
        if node.op_type not in NAMED:
            continue
        found = next((p.value for p in node.metadata_props if p.key == SCOPES), "[]")
        scopes = [scope for scope in ast.literal_eval(found)[:-1] if scope]
        if scopes:
            node.name = scopes[-1].removeprefix("model.")
    seen: set[str] = set()
    for node in graph.node:  # a module may compute several products
        if node.name in seen:
            node.name = f"{node.name}/{node.output[0]}"
        seen.add(node.name)


def import_domains(model: onnx.ModelProto) -> None:
    """Import, at version 1, the domains of nodes that the model does not import yet: shape inference asks for them."""
    from onnx import helper

    known = {entry.domain for entry in model.opset_import}
    for domain in sorted({node.domain for node in model.graph.node} - known):
        model.opset_import.append(helper.make_opsetid(domain, 1))


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
