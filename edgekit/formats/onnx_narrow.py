"""An exported encoder with fewer heads and FFN neurons, made in the graph: the file that a pruned model would give, but
for its numbers. Exporting takes seconds, this takes none: many structures can be timed before one is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit.errors import StageError
from edgekit.formats.onnx_graph import constant, readers, replace_constant

if TYPE_CHECKING:
    import onnx
    from transformers import PreTrainedModel

__all__ = ["LayerNames", "layer_names", "narrow_graph"]

ATTENTION = "MultiHeadAttention"
HINT = "its costs cannot be measured; prune it by shares (edgekit prune)"


@dataclass(frozen=True)
class LayerNames:
    """What the exported graph calls a layer's products (`onnx_graph.name_by_module`); of two factors, the one that
    counts: the last of those that write heads and neurons, the first of those that read them."""

    query: str
    key: str
    value: str
    attention_output: str
    ffn_up: str
    ffn_down: str


def layer_names(model: PreTrainedModel) -> list[LayerNames]:
    """The names of each layer's products in what `write_onnx` makes of `model`."""
    from edgekit.nn.factored import LowRankLinear
    from edgekit.nn.load import encoder_layers
    from edgekit.nn.surgery import part, part_path

    def name(layer: int, what: str) -> str:
        factor = ".down" if what in ("attention_output", "ffn_down") else ".up"
        inner = factor if isinstance(part(model, layer, what), LowRankLinear) else ""
        return f"{part_path(model, layer, what)}{inner}"

    fields = LayerNames.__dataclass_fields__
    return [LayerNames(*(name(layer, what) for what in fields)) for layer in range(len(encoder_layers(model)))]


def narrow_graph(
    model: onnx.ModelProto, names: Sequence[LayerNames], heads: Sequence[int], ffn: Sequence[int], size: int
) -> None:
    """Keep the first `heads[layer]` heads, of `size` columns each, and `ffn[layer]` neurons of each layer, in place.

    Raises StageError where the graph has no such products: an architecture that computes its layers otherwise.
    """
    graph = model.graph
    for layer, (count, neurons) in enumerate(zip(heads, ffn, strict=True)):
        found = names[layer]
        for name in (found.query, found.key, found.value):
            _keep_outputs(graph, name, count * size)
        _keep_inputs(graph, found.attention_output, count * size)
        _set_heads(graph, found.query, count, size)
        _keep_outputs(graph, found.ffn_up, neurons)
        _keep_inputs(graph, found.ffn_down, neurons)


def _keep_outputs(graph: onnx.GraphProto, name: str, count: int) -> None:
    product = _product(graph, name)
    weight = constant(graph, product.input[1])
    assert weight is not None
    replace_constant(graph, product.input[1], weight[:, :count])
    for added in readers(graph, product.output[0]):
        for bias in added.input if added.op_type == "Add" else ():
            values = constant(graph, bias)
            if values is not None and values.shape == weight.shape[1:]:
                replace_constant(graph, bias, values[:count])


def _keep_inputs(graph: onnx.GraphProto, name: str, count: int) -> None:
    product = _product(graph, name)
    weight = constant(graph, product.input[1])
    assert weight is not None
    replace_constant(graph, product.input[1], weight[:count])


def _set_heads(graph: onnx.GraphProto, query: str, count: int, size: int) -> None:
    """Tell the attention that reads this query how many heads there are, of `size` columns each."""
    below = [_product(graph, query)]
    while below:
        found = readers(graph, below.pop().output[0])
        attention = next((node for node in found if node.op_type == ATTENTION), None)
        if attention is not None:
            next(a for a in attention.attribute if a.name == "num_heads").i = count
            _cut_attention_bias(graph, attention, count * size)
            return
        below += [node for node in found if node.op_type == "Add"]
    raise StageError(f"{query}: no {ATTENTION} reads it, so that its heads cannot be told apart", hint=HINT)


def _cut_attention_bias(graph: onnx.GraphProto, attention: onnx.NodeProto, width: int) -> None:
    """Of the biases of query, key and value, one after the other, where the attention adds them itself."""
    name = attention.input[3] if len(attention.input) > 3 else ""
    bias = constant(graph, name) if name else None
    if bias is not None:
        replace_constant(graph, name, bias.reshape(3, -1)[:, :width].flatten())


def _product(graph: onnx.GraphProto, name: str) -> onnx.NodeProto:
    """The product of a constant matrix that comes from the module `name`."""
    node = next((n for n in graph.node if n.name == name), None)
    if node is None or node.op_type != "MatMul" or constant(graph, node.input[1]) is None:
        raise StageError(f"the exported graph has no matrix product {name!r}", hint=HINT)
    return node
