"""An encoder and its head as one ONNX file with dynamic batch and, of texts, length.

`torch.onnx` does the conversion. Attention leaves torch as ONNX Runtime's own `MultiHeadAttention` operator, through
Transformers' attention interface, so nothing has to be pattern-matched back together afterwards and pruned head counts
need no special case. ONNX Runtime fuses the rest (GELU, skip connections with layer norm) when it loads the file.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.artifact import Task
from edgekit.formats.onnx_graph import drop_unread, forget_origin, name_by_module, save_model
from edgekit.nn.embedder import pooling_of
from edgekit.nn.head import output_of
from edgekit.nn.layers import backbone
from edgekit.pictures import picture_shape

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch
    from transformers import PreTrainedModel

__all__ = ["OPSET", "operators", "write_onnx"]

OPSET = 18  # what torch's exporter targets natively; every runtime since onnxruntime 1.16 reads it
ATTENTION = "edgekit_ort"


def write_onnx(model: PreTrainedModel, task: Task, out_file: Path, *, rewrite: bool = True) -> None:
    """Export to `out_file`; inputs int64 (batch, length), or `pixel_values` float32 (batch, channels, height, width);
    output `logits` float32: (batch, labels), token by token (batch, length, labels), or embeddings (batch, width).

    `token_type_ids` is an input only where the task tells segments apart; otherwise its zeros are part of the graph.
    `rewrite`: leave out what the output never reads and what no text changes (see `onnx_rewrite`, `onnx_fold`); the
    file then takes at most `task.max_length` tokens.
    Source: torch.onnx.export(dynamo=True), torch.onnx.ops.symbolic.
    """
    import torch

    _register_attention(task.max_length if rewrite else None)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of an absent torchvision
    model = model.to("cpu").eval()
    if model._supports_attention_backend:  # the others compute attention by themselves
        model.set_attn_implementation(ATTENTION)
    names, example, axes = _inputs(model, task)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations; what it gets wrong, parity shows
        program = torch.onnx.export(
            _logits_only(model, names),
            tuple(example.clone() for _ in names),
            dynamo=True,
            dynamic_shapes=(tuple(axes for _ in names),),
            input_names=names,
            output_names=["logits"],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    _tidy(program.model, task.max_length if rewrite else 0, first_only=reads_first_token(model, task))
    save_model(program.model, out_file)


def _inputs(model: PreTrainedModel, task: Task) -> tuple[list[str], torch.Tensor, dict[int, Any]]:
    """Names of the inputs, an example of each, and the axes that vary."""
    import torch

    batch = torch.export.Dim("batch")
    if backbone(model)[1].pictures:
        shape = picture_shape(model.config.to_dict())
        return ["pixel_values"], torch.zeros((2, *shape)), {0: batch}
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if task.segments else [])]
    return names, torch.ones((2, 8), dtype=torch.long), {0: batch, 1: torch.export.Dim("length")}


def reads_first_token(model: PreTrainedModel, task: Task) -> bool:
    """Whether the output may stand on the first token alone: a classifier's head, or an embedding that is its state."""
    return task.kind in ("text-classification", "image-classification") or pooling_of(model) == "cls"


def operators(file: Path) -> dict[str, int]:
    """Operator -> how often the graph uses it."""
    import onnx

    graph = onnx.load(str(file), load_external_data=False).graph
    return dict(Counter(node.op_type for node in graph.node))


def _logits_only(model: PreTrainedModel, names: Sequence[str]) -> torch.nn.Module:
    import torch

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            return output_of(self.model, dict(zip(names, inputs, strict=True)))

    return Logits().eval()


def _register_attention(longest: int | None) -> None:
    """`longest`: how many tokens a text has at most; None where that is not known."""
    from functools import partial

    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(ATTENTION, _attention)
    AttentionMaskInterface.register(ATTENTION, partial(_mask, longest=longest))


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """softmax(Q K^T * scale + mask) V for (batch, heads, length, size), as `com.microsoft::MultiHeadAttention`.

    `attention_mask` is one of `_mask`'s: the operator's key padding mask, or its attention bias.
    """
    import torch

    masks = (attention_mask,) if attention_mask is None or attention_mask.ndim == 2 else (None, attention_mask)
    batch, heads, length, size = query.shape
    query, key, value = (x.transpose(1, 2).reshape(batch, length, heads * size) for x in (query, key, value))
    output = torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        (query, key, value, None, *masks),
        attrs={"num_heads": heads, "scale": float(scaling if scaling is not None else size**-0.5)},
        dtype=query.dtype,
        shape=(batch, length, heads * size),
        version=1,
    )
    return output.reshape(batch, length, heads, size), None


def _mask(
    *_: Any,
    longest: int | None,
    attention_mask: torch.Tensor | None = None,
    q_length: int = 0,
    local_size: int | None = None,
    **__: Any,
) -> torch.Tensor | None:
    """The (batch, length) 0/1 mask as the int32 that the operator takes; for layers where a token looks at its
    neighbours alone, up to `local_size` away, what is added to the scores, (batch, 1, length, length) float32."""
    import torch

    if attention_mask is None:
        return None
    if local_size is None or (longest is not None and longest <= local_size + 1):
        return attention_mask.to(torch.int32)
    places = torch.arange(q_length, device=attention_mask.device)
    near = (places[:, None] - places[None, :]).abs() <= local_size
    seen = near[None, None] & attention_mask[:, None, None, :].bool()
    return torch.where(seen, 0.0, torch.finfo(torch.float32).min)


def _tidy(model: ir.Model, longest: int, *, first_only: bool) -> None:
    """Rewrite the graph (where `longest` tokens are said to be enough), and drop what only costs bytes.

    `first_only`: the head reads no token but the first.
    """
    from edgekit.formats.onnx_fold import fold_positions, fuse_gelu
    from edgekit.formats.onnx_fuse import bias_into_attention, part_norms
    from edgekit.formats.onnx_rewrite import drop_reshapes, first_token_only

    name_by_module(model.graph)
    if longest:
        drop_reshapes(model)
        if first_only:
            first_token_only(model)
        fuse_gelu(model)
        fold_positions(model, longest)
        bias_into_attention(model)
        part_norms(model)
        drop_unread(model)
    forget_origin(model)
