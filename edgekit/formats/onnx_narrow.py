"""An exported encoder with fewer heads and FFN neurons, made in the graph: the file that a pruned model would give, but
for its numbers. Exporting takes seconds, this takes none: many structures can be timed before one is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit.errors import StageError
from edgekit.formats.onnx_graph import constant, input_at, replace_constant

if TYPE_CHECKING:
    import onnx_ir as ir
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
    model: ir.Model, names: Sequence[LayerNames], heads: Sequence[int], ffn: Sequence[int], size: int
) -> None:
    """Keep the first `heads[layer]` heads, of `size` columns each, and `ffn[layer]` neurons of each layer, in place.

    Raises StageError where the graph has no such products: an architecture that computes its layers otherwise.
    """
    products = {node.name: node for node in model.graph if node.op_type == "MatMul"}
    for layer, (count, neurons) in enumerate(zip(heads, ffn, strict=True)):
        found = names[layer]
        query = _product(products, found.query)
        for name in (found.query, found.key, found.value):
            _keep_outputs(_product(products, name), count * size)
        _keep_inputs(_product(products, found.attention_output), count * size)
        _set_heads(query, count, size)
        _keep_outputs(_product(products, found.ffn_up), neurons)
        _keep_inputs(_product(products, found.ffn_down), neurons)


def _product(products: Mapping[str, ir.Node], name: str) -> ir.Node:
    """The product of a constant matrix that comes from the module `name`."""
    node = products.get(name)
    if node is None or constant(node.inputs[1]) is None:
        raise StageError(f"the exported graph has no matrix product {name!r}", hint=HINT)
    return node


def _keep_outputs(product: ir.Node, count: int) -> None:
    weight = product.inputs[1].const_value.numpy()
    replace_constant(product.inputs[1], weight[:, :count])
    for added in product.outputs[0].consumers():
        for bias in added.inputs if added.op_type == "Add" else ():
            values = constant(bias)
            if values is not None and values.shape == weight.shape[1:]:
                replace_constant(bias, values[:count])


def _keep_inputs(product: ir.Node, count: int) -> None:
    replace_constant(product.inputs[1], product.inputs[1].const_value.numpy()[:count])


def _set_heads(query: ir.Node, count: int, size: int) -> None:
    """Tell the attention that reads this query how many heads there are, of `size` columns each."""
    import onnx_ir as ir

    below = [query]
    while below:
        found = below.pop().outputs[0].consumers()
        attention = next((node for node in found if node.op_type == ATTENTION), None)
        if attention is not None:
            attention.attributes.add(ir.AttrInt64("num_heads", count))
            _cut_attention_bias(attention, count * size)
            return
        below += [node for node in found if node.op_type == "Add"]
    raise StageError(f"{query.name}: no {ATTENTION} reads it, so that its heads cannot be told apart", hint=HINT)


def _cut_attention_bias(attention: ir.Node, width: int) -> None:
    """Of the biases of query, key and value, one after the other, where the attention adds them itself."""
    bias = input_at(attention, 3)
    values = constant(bias)
    if values is not None:
        replace_constant(bias, values.reshape(3, -1)[:, :width].flatten())
