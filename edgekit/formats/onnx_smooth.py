"""Moving outlier channels from activations into weights, folded into the graph: exact, and free when it runs.

One scale for a whole activation is as coarse as its largest channel wants it. Where an operator before the products can
make channel c smaller by s_c (a layer norm by its gain and bias, an attention by its values), and the products' weights
take s_c, the result is the same and the scale finer: s_c = max|x_c|^a / max|w_c|^(1 - a).
A norm that a residual reads too (BERT's) cannot be folded into, and is left alone.
Source: Xiao et al. 2022, SmoothQuant.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekit.formats.onnx_graph import add_constant, constant, input_at, only_reader, replace_constant

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Group", "activation_ranges", "fold", "groups"]

NORMS = {"LayerNormalization": (1, 2), "SkipLayerNormalization": (2, 3)}  # places of gain and, where it has one, bias
VALUE, BIAS = 2, 3  # places of MultiHeadAttention's inputs
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Group:
    """An activation, the operator that makes it, and the products that alone read it."""

    maker: ir.Node
    products: tuple[ir.Node, ...]

    @property
    def activation(self) -> str:
        """Its name."""
        return str(self.maker.outputs[0].name)


def groups(model: ir.Model) -> list[Group]:
    """Activations that nothing but products with weights of their own reads, and whose maker can be folded into."""
    found = []
    for node in model.graph:
        if not (_own_gain(node) or _own_values(node)) or node.outputs[0].is_graph_output():
            continue
        readers = node.outputs[0].consumers()
        if readers and all(r.inputs[0] is node.outputs[0] and _own_weight(r) for r in readers):
            found.append(Group(node, readers))
    return found


def activation_ranges(
    model: ir.Model, names: Sequence[str], feeds: Iterable[dict[str, NDArray[Any]]]
) -> dict[str, Floats]:
    """Largest |x| of each channel (the last axis) of each activation, over all inputs."""
    import onnx_ir as ir
    import onnxruntime

    if not names:
        return {}
    watched = model.clone()
    values = ir.convenience.create_value_mapping(watched.graph)
    for name in names:
        values[name].dtype = ir.DataType.FLOAT
        watched.graph.outputs.append(values[name])
    written = ir.to_proto(watched).SerializeToString()
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    found: dict[str, Floats] = {}
    for feed in feeds:
        for name, seen in zip(names, session.run(names, feed), strict=True):
            largest = np.abs(seen).reshape(-1, seen.shape[-1]).max(axis=0)
            found[name] = np.maximum(found[name], largest) if name in found else largest
    return found


def fold(model: ir.Model, group: Group, largest: Floats, alpha: float) -> Floats:
    """Divide each channel of the activation by s (width,), multiply its weights' rows; returns s.

    `largest` (width,): as `activation_ranges` finds it. Channels that are always zero stay as they are.
    """
    weights = [np.asarray(constant(product.inputs[1])) for product in group.products]
    rows = np.maximum.reduce([np.abs(w).max(axis=1) for w in weights])
    known = (largest > 0) & (rows > 0)
    scale = np.ones_like(largest)
    scale[known] = largest[known] ** alpha / rows[known] ** (1 - alpha)
    for product, weight in zip(group.products, weights, strict=True):
        replace_constant(product.inputs[1], weight * scale[:, None])
    if group.maker.op_type in NORMS:
        for place in NORMS[group.maker.op_type]:
            _divide_input(model.graph, group.maker, place, scale)
    else:
        _divide_values(model.graph, group.maker, scale)
    return scale


def _own_gain(node: ir.Node) -> bool:
    """Whether it is a norm whose gain, and bias if it has one, are constants."""
    if node.op_type not in NORMS:
        return False
    gain, bias = NORMS[node.op_type]
    return constant(input_at(node, gain)) is not None and _constant_or_none(node, bias)


def _own_values(node: ir.Node) -> bool:
    """Whether it is an attention whose values are a product with weights of its own, and biases the attention's."""
    value = input_at(node, VALUE) if node.op_type == "MultiHeadAttention" else None
    product = value.producer() if value is not None and only_reader(value) is not None else None
    return product is not None and _own_weight(product) and _constant_or_none(node, BIAS)


def _constant_or_none(node: ir.Node, place: int) -> bool:
    return input_at(node, place) is None or constant(input_at(node, place)) is not None


def _own_weight(node: ir.Node) -> bool:
    """Whether it is a product with a constant matrix that nothing else reads."""
    return node.op_type == "MatMul" and constant(node.inputs[1]) is not None and only_reader(node.inputs[1]) is node


def _divide_values(graph: ir.Graph, attention: ir.Node, scale: Floats) -> None:
    """Softmax mixes positions, not channels: what the values are divided by, the attention's output is."""
    weight = attention.inputs[VALUE].producer().inputs[1]
    replace_constant(weight, weight.const_value.numpy() / scale)
    ones = np.ones(2 * len(scale), np.float32)  # of queries and keys
    _divide_input(graph, attention, BIAS, np.concatenate([ones, scale]))


def _divide_input(graph: ir.Graph, node: ir.Node, place: int, scale: Floats) -> None:
    """A constant of the node's own, since others may read the one that it had; nothing where it has none."""
    values = constant(input_at(node, place))
    if values is not None:
        name = f"{node.outputs[0].name}.smooth.{place}"
        node.replace_input_with(place, add_constant(graph, name, values / scale))
