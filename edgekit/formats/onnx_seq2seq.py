"""An encoder-decoder model as two ONNX files with a KV cache, and their int8 form.

`encoder.onnx` reads the source once and gives each decoder layer's cross-attention keys and values; `decoder.onnx`
takes them with the cache of the tokens before (empty at first), so one graph serves the first step and all others, and
no weight is stored twice for it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from edgekit.formats.onnx_encoder import OPSET
from edgekit.formats.onnx_graph import (
    add_constant,
    constant,
    drop_unread,
    forget_origin,
    load_model,
    name_by_module,
    save_model,
)

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch
    from transformers import PreTrainedModel

__all__ = ["DECODER", "ENCODER", "quantize_seq2seq", "write_seq2seq"]

ENCODER, DECODER = "encoder.onnx", "decoder.onnx"
EXAMPLE = (2, 5, 4, 3)  # batch, source, tokens before, tokens: no two alike, so that none is taken for another


def write_seq2seq(model: PreTrainedModel, out: Path) -> None:
    """Write ENCODER and DECODER into `out`. Token ids and masks int64, everything else float32:

    encoder: input_ids, attention_mask (batch, source) -> cross_I_key, cross_I_value (batch, heads, source, size);
    decoder: input_ids (batch, length), attention_mask (batch, source), the cross_*, past_I_key and past_I_value (batch,
    heads, past, size) -> logits (batch, length, vocabulary), present_I_key and present_I_value, of layer I.
    Source: torch.onnx.export(dynamo=True).
    """
    import torch

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of an absent torchvision
    model = model.to("cpu").eval()
    model.set_attn_implementation("eager")
    batch, source, past, length = EXAMPLE
    dims = {name: torch.export.Dim(name) for name in ("batch", "source", "past", "length")}
    read = _wrapped(model, _read)
    ids, mask = torch.ones((batch, source), dtype=torch.long), torch.ones((batch, source), dtype=torch.long)
    with torch.no_grad():
        cross = read(ids, mask)
    names = [f"{layer}_{part}" for layer in range(len(cross) // 2) for part in ("key", "value")]
    given, by_source = {0: dims["batch"], 1: dims["source"]}, {0: dims["batch"], 2: dims["source"]}
    crossed, cached = [f"cross_{name}" for name in names], [f"past_{name}" for name in names]
    shapes: list[dict[int, Any]] = [given, given]
    _export(read, (ids, mask), shapes, ["input_ids", "attention_mask"], crossed, out / ENCODER)
    before = [torch.zeros((batch, t.shape[1], past, t.shape[3])) for t in cross]
    shapes = [{0: dims["batch"], 1: dims["length"]}, given, *(by_source for _ in cross)]
    shapes += [{0: dims["batch"], 2: dims["past"]} for _ in cross]
    _export(
        _wrapped(model, _decode),
        (torch.ones((batch, length), dtype=torch.long), mask, *cross, *before),
        shapes,
        ["input_ids", "attention_mask", *crossed, *cached],
        ["logits", *(f"present_{name}" for name in names)],
        out / DECODER,
    )


def quantize_seq2seq(source: Path, out: Path, *, exclude: tuple[str, ...] = ()) -> list[str]:
    """Both files with int8 weights (per output channel; activations int8 at run time) and int8 embedding rows, from the
    folder `source` into `out`; returns what was quantized. A table that is also the output's matrix is stored as both.

    See `quantize_onnx`.
    """
    from edgekit.formats.onnx_quantize import quantize_onnx

    touched = []
    with TemporaryDirectory(dir=out.parent) as folder:
        for file in (ENCODER, DECODER):
            model = load_model(source / file)
            _untie(model)
            save_model(model, Path(folder) / file)
            touched += quantize_onnx(Path(folder) / file, out / file, "int8-dynamic", exclude=exclude).touched
    return touched


def _untie(model: ir.Model) -> None:
    """Transposed constants as constants of their own, which a product can have in another type than a table."""
    for node in [n for n in model.graph if n.op_type == "Transpose" and "perm" in n.attributes]:
        values, transposed = constant(node.inputs[0]), node.outputs[0]
        if values is not None and not transposed.is_graph_output():
            own = values.transpose(list(node.attributes["perm"].as_ints()))
            transposed.replace_all_uses_with(add_constant(model.graph, transposed.name, own))
    drop_unread(model)


def _read(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Keys and values of each cross-attention: what the decoder computes of the source at its first token. All else
    that this token makes is read by nobody, so the exporter leaves it out."""
    from transformers import DynamicCache, EncoderDecoderCache

    states = model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    model.get_decoder()(
        input_ids=ids[:, :1],
        encoder_hidden_states=states,
        encoder_attention_mask=mask,
        past_key_values=cache,
        use_cache=True,
    )
    return _tensors(cache.cross_attention_cache)


def _decode(model: Any, ids: torch.Tensor, mask: torch.Tensor, *states: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Logits of the tokens, and the cache with them in it."""
    import torch
    from transformers import DynamicCache, EncoderDecoderCache
    from transformers.modeling_outputs import BaseModelOutput

    half = len(states) // 2
    cross, past = (DynamicCache(list(zip(s[::2], s[1::2], strict=True))) for s in (states[:half], states[half:]))
    unread = torch.zeros((*mask.shape, 1))  # only its shape counts: the cache holds what was made of the states
    found = model(
        encoder_outputs=BaseModelOutput(last_hidden_state=unread),
        attention_mask=mask,
        decoder_input_ids=ids,
        past_key_values=EncoderDecoderCache(past, cross),
        use_cache=True,
    )
    return (found.logits, *_tensors(found.past_key_values.self_attention_cache))


def _tensors(cache: Any) -> tuple[torch.Tensor, ...]:
    return tuple(tensor for layer in cache.layers for tensor in (layer.keys, layer.values))


def _wrapped(model: PreTrainedModel, function: Callable[..., tuple[torch.Tensor, ...]]) -> torch.nn.Module:
    import torch

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return function(self.model, *inputs)

    return Wrapped().eval()


def _export(
    module: torch.nn.Module,
    example: tuple[torch.Tensor, ...],
    shapes: list[dict[int, Any]],
    inputs: list[str],
    outputs: list[str],
    file: Path,
) -> None:
    import torch

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations; what it gets wrong, parity shows
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            dynamic_shapes=(tuple(shapes),),
            input_names=inputs,
            output_names=outputs,
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    name_by_module(program.model.graph)
    drop_unread(program.model)
    forget_origin(program.model)
    save_model(program.model, file)
