"""Moving outlier channels from activations into weights, folded into the graph: exact, and free when it runs.

One scale for a whole activation is as coarse as its largest channel wants it. Where an operator before the products can
make channel c smaller by s_c (a layer norm by its gain and bias, an attention by its values), and the products' weights
take s_c, the result is the same and the scale finer: s_c = max|x_c|^a / max|w_c|^(1 - a).
A norm that a residual reads too (BERT's) cannot be folded into, and is left alone.
Source: Xiao et al. 2022, SmoothQuant.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekit.formats.onnx_graph import add_constant, constant, maker, readers, replace_constant

if TYPE_CHECKING:
    import onnx

__all__ = ["Group", "activation_ranges", "fold", "groups"]

NORMS = {"LayerNormalization": (1, 2), "SkipLayerNormalization": (2, 3)}  # places of gain and bias
VALUE, BIAS = 2, 3  # places of MultiHeadAttention's inputs
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Group:
    """An activation, the operator that makes it, and the weights of the products that read it: names."""

    activation: str
    maker: str  # operator
    weights: tuple[str, ...]


def groups(model: onnx.ModelProto) -> list[Group]:
    """Activations that nothing but products with weights of their own reads, and whose maker can be folded into."""
    graph = model.graph
    found = []
    for node in graph.node:
        normed = node.op_type in NORMS and len(node.input) > NORMS[node.op_type][1]
        known = normed or (node.op_type == "MultiHeadAttention" and _own_values(graph, node))
        name = node.output[0] if node.output else ""
        users = readers(graph, name) if known else []
        weights = [user.input[1] for user in users if user.op_type == "MatMul" and user.input[0] == name]
        own = all(constant(graph, w) is not None and len(readers(graph, w)) == 1 for w in weights)
        if weights and own and len(weights) == len(users):
            found.append(Group(name, node.op_type, tuple(weights)))
    return found


def activation_ranges(file: Path, names: Iterable[str], feeds: Iterable[dict[str, NDArray[Any]]]) -> dict[str, Floats]:
    """Largest |x| of each channel (the last axis) of each activation, over all inputs."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    model = onnx.load(str(file))
    wanted = list(names)
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in wanted)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: dict[str, Floats] = {}
    for feed in feeds:
        for name, values in zip(wanted, session.run(wanted, feed), strict=True):
            seen = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0)
            found[name] = np.maximum(found[name], seen) if name in found else seen
    return found


def fold(model: onnx.ModelProto, group: Group, largest: Floats, alpha: float) -> Floats:
    """Divide each channel of the activation by s (width,), multiply its weights' rows; returns s.

    `largest` (width,): as `activation_ranges` finds it. Channels that are always zero stay as they are.
    """
    graph = model.graph
    weights = [np.asarray(constant(graph, name)) for name in group.weights]
    rows = np.maximum.reduce([np.abs(w).max(axis=1) for w in weights])
    known = (largest > 0) & (rows > 0)
    scale = np.ones_like(largest)
    scale[known] = largest[known] ** alpha / rows[known] ** (1 - alpha)
    for name, weight in zip(group.weights, weights, strict=True):
        replace_constant(graph, name, weight * scale[:, None])
    node = maker(graph, group.activation)
    assert node is not None
    if group.maker in NORMS:
        for place in NORMS[group.maker]:
            _divide_input(graph, node, place, scale)
    else:
        _divide_values(graph, node, scale)
    return scale


def _own_values(graph: onnx.GraphProto, attention: onnx.NodeProto) -> bool:
    """Whether the attention's values are a product with weights of its own, and biases the attention's."""
    product = maker(graph, attention.input[VALUE])
    if product is None or product.op_type != "MatMul" or len(readers(graph, product.output[0])) != 1:
        return False
    return constant(graph, product.input[1]) is not None and len(readers(graph, product.input[1])) == 1


def _divide_values(graph: onnx.GraphProto, attention: onnx.NodeProto, scale: Floats) -> None:
    """Softmax mixes positions, not channels: what the values are divided by, the attention's output is."""
    product = maker(graph, attention.input[VALUE])
    assert product is not None
    weight = np.asarray(constant(graph, product.input[1]))
    replace_constant(graph, product.input[1], weight / scale)
    if len(attention.input) > BIAS and attention.input[BIAS]:
        ones = np.ones(2 * len(scale), np.float32)  # of queries and keys
        _divide_input(graph, attention, BIAS, np.concatenate([ones, scale]))


def _divide_input(graph: onnx.GraphProto, node: onnx.NodeProto, place: int, scale: Floats) -> None:
    """A constant of the node's own, since others may read the one that it had."""
    values = np.asarray(constant(graph, node.input[place]))
    name = f"{node.output[0]}.smooth.{place}"
    add_constant(graph, name, values / scale)
    node.input[place] = name
