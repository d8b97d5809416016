"""A decoder's GGUF types within a number of bytes, and the rounding that goes with them.

What a type costs a tensor is the KL divergence, to second order, of that tensor's error after rounding with error
feedback: measured on some of its rows, so that the work stays small beside the rounding itself. On a Llama of 6 M
parameters, KL divergence on held-out text against llama.cpp's mix with an importance matrix, at the size of Q4_K_M:
types alone 31% lower, rounding alone 50%, both 73%; at the size of Q2_K 53%, 46%, 76%.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.formats.ggml import TYPES, dequantize, quantize, row_bytes
from edgekit.formats.gguf_budget import Choice, choose_types
from edgekit.formats.gguf_decoder import read_plan
from edgekit.formats.gguf_decoder_importance import module_paths
from edgekit.formats.gguf_decoder_tensors import Tensor
from edgekit.formats.gguf_rounding import round_matrix
from edgekit.nn.curvature import Curvature, measure_curvature
from edgekit.nn.decoders import load_decoder
from edgekit.nn.gptq import inverse_factor
from edgekit.progress import Progress, Silent
from edgekit.tasks.language_modeling import Windows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Rounding", "plan_rounding"]

CANDIDATES = ("q2_k", "q3_k", "iq4_xs", "q4_k", "q5_k", "q6_k", "q8_0", "f16")  # rows of 256
NARROW = ("iq4_nl", "q4_1", "q5_0", "q5_1", "q8_0", "f16")  # rows of 32
ROWS = 64  # of a tensor that are rounded to see what a type costs it
Floats = NDArray[np.float32]
Terms = list[Curvature]  # two where the embeddings are the output matrix too


@dataclass(frozen=True)
class Rounding:
    """`types` by tensor name; `encode` is what `write_gguf_decoder` takes. `importance` (columns,) weighs errors while
    scales are looked for; `factors` (columns, columns) say which later columns take up the error of one."""

    types: dict[str, str]
    importance: dict[str, Floats]
    factors: dict[str, Floats]

    def encode(self, name: str, rows: Floats, kind: str) -> NDArray[np.uint8]:
        """Some rows of the tensor as bytes; may run in several threads."""
        if kind == "f32":
            return quantize(rows, kind)
        return round_matrix(rows, kind, self.importance[name], self.factors[name])


def plan_rounding(
    folder: Path,
    windows: Windows,
    *,
    budget: int = 0,
    types: Mapping[str, str] | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Rounding:
    """How to round the decoder in `folder`, by what flows through it on `windows`.

    `budget`: bytes that all tensors that may be quantized take together; types are chosen to cost the least KL
    divergence within it. `types`: by tensor name, given instead. Memory: two (columns, columns) floats for each tensor.
    Raises UsageError where the smallest types do not fit, StageError where activations are not finite.
    """
    tensors = [tensor for tensor in read_plan(folder) if tensor.spec.quantizable]
    terms = _measure(load_decoder(folder, device=device), tensors, windows, progress)
    joint = {name: reduce(Curvature.together, found) for name, found in terms.items()}
    importance = {name: curvature.importance for name, curvature in joint.items()}
    factors = {name: inverse_factor(curvature.inputs).numpy() for name, curvature in joint.items()}
    if types is None:
        options = {}
        for tensor in (progress or Silent()).track(tensors, "cost of types", len(tensors)):
            name = tensor.name
            options[name] = list(_choices(tensor, terms[name], importance[name], factors[name]))
        types = choose_types(options, budget)
    return Rounding(dict(types), importance, factors)


def _measure(
    model: PreTrainedModel, tensors: list[Tensor], windows: Windows, progress: Progress | None
) -> dict[str, Terms]:
    """The curvature of every tensor, rows as the GGUF file has them."""
    paths = {name: [path] for name, path in module_paths(model, (tensor.spec for tensor in tensors)).items()}
    ends = {id(model.get_output_embeddings()): "output", id(model.get_input_embeddings()): "input"}
    found = {ends[id(module)]: path for path, module in model.named_modules() if id(module) in ends}
    paths["token_embd.weight"] = [found["input"]]
    if "output.weight" not in paths:
        paths["token_embd.weight"].append(found["output"])
    every = [path for several in paths.values() for path in several]
    curvatures = measure_curvature(model, windows, every, progress=progress)
    orders = {tensor.name: slice(None) if tensor.order is None else tensor.order for tensor in tensors}
    return {
        name: [Curvature(c.inputs, c.outputs[orders[name]]) for c in (curvatures[path] for path in several)]
        for name, several in paths.items()
    }


def _choices(tensor: Tensor, terms: Terms, importance: Floats, factor: Floats) -> Iterator[Choice]:
    """Every type that fits the tensor's rows, with its bytes and the KL divergence that it costs."""
    import torch

    rows = np.unique(np.linspace(0, tensor.rows - 1, ROWS).astype(np.intp))
    weight = np.concatenate([tensor.read(row, row + 1) for row in rows])
    for kind in CANDIDATES if tensor.columns % 256 == 0 else NARROW:
        if tensor.columns % TYPES[kind].block == 0:
            packed = round_matrix(weight, kind, importance, factor)
            error = torch.from_numpy(dequantize(packed, kind, tensor.columns) - weight)
            size = tensor.rows * row_bytes(kind, tensor.columns)
            yield Choice(kind, size, sum(curvature.cost(error, rows) for curvature in terms))
