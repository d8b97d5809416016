"""Finding one's way in an ONNX graph: who makes a value, who reads it, and what a constant is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

__all__ = ["add_constant", "constant", "drop_unread", "maker", "readers", "replace_constant"]


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
