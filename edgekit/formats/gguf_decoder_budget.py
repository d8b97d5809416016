"""Types within a file size, chosen by measured damage: what each tensor's rounding error costs in KL divergence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import UsageError
from edgekit.formats.ggml import TYPES, dequantize, ggml_type, quantize, row_bytes
from edgekit.formats.gguf_budget import Choice, choose_types
from edgekit.formats.gguf_decoder import bytes_besides, decoder_tensors, preset_types, read_plan
from edgekit.formats.gguf_decoder_importance import module_paths
from edgekit.formats.gguf_decoder_tensors import Tensor
from edgekit.formats.gguf_decoder_types import PRESETS
from edgekit.nn.curvature import Curvature, measure_curvature
from edgekit.nn.decoders import load_decoder
from edgekit.progress import Progress, Silent
from edgekit.tasks.language_modeling import Windows

__all__ = ["budget_bytes", "types_within"]

CANDIDATES = ("q2_k", "q3_k", "iq4_xs", "q4_0", "q4_k", "q5_0", "q5_k", "q6_k", "q8_0", "f16")
UNITS = {"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMG]i?B|B)")
Columns = Mapping[str, NDArray[np.float32]]


def budget_bytes(folder: Path, budget: str) -> int:
    """What the tensors that may be quantized can take, for a file of a size such as "3.8MB" or "q4_k_m" (that type's).

    Raises UsageError where it is neither.
    """
    specs = {spec.name: spec for spec in decoder_tensors(folder)}
    if budget in PRESETS:
        types = preset_types(folder, budget).items()
        return sum(specs[name].shape[0] * row_bytes(kind, specs[name].shape[1]) for name, kind in types)
    found = SIZE.fullmatch(budget.strip())
    if found is None:
        raise UsageError(f"budget {budget!r} is no size", hint=f'such as "3.8MB", or one of: {", ".join(PRESETS)}')
    return int(float(found[1]) * UNITS[found[2]]) - bytes_besides(folder)


def types_within(
    folder: Path, budget: int, windows: Windows, *, device: str = "cpu", progress: Progress | None = None
) -> tuple[dict[str, str], dict[str, NDArray[np.float32]]]:
    """Types by tensor name whose bytes add up to `budget` at most, and the importance that they are rounded with.

    Embeddings that are not the output matrix too have no gradient of their own here: they get the type that fills their
    share of the budget. Raises UsageError where the smallest types do not fit.
    """
    model = load_decoder(folder, device=device)
    tensors = [tensor for tensor in read_plan(folder) if tensor.spec.quantizable]
    paths = module_paths(model, (tensor.spec for tensor in tensors))
    if "output.weight" not in paths:
        head = model.get_output_embeddings()
        paths["token_embd.weight"] = next(path for path, module in model.named_modules() if module is head)
    curvatures = measure_curvature(model, windows, list(paths.values()), progress=progress)
    known = {name: curvatures[path] for name, path in paths.items()}
    share = 8 * budget / sum(tensor.rows * tensor.columns for tensor in tensors)  # bits for each weight
    options = {}
    for tensor in (progress or Silent()).track(tensors, "cost of types", len(tensors)):
        choices = list(_choices(tensor, known.get(tensor.name)))
        if tensor.name not in known:
            fitting = [choice for choice in choices if ggml_type(choice.type_name).bits <= share]
            choices = [max(fitting or choices[:1], key=lambda choice: choice.bytes)]
        options[tensor.name] = choices
    importance = {name: found.importance for name, found in known.items()}
    return choose_types(options, budget), importance


def _choices(tensor: Tensor, curvature: Curvature | None) -> Iterator[Choice]:
    """Every type that fits the tensor's rows, with the bytes and the KL divergence that it costs."""
    import torch

    weight = tensor.read(0, tensor.rows)
    for kind in CANDIDATES:
        if tensor.columns % TYPES[kind].block:
            continue
        packed = quantize(weight, kind, curvature.importance if curvature else None)
        error = dequantize(packed, kind, tensor.columns) - weight
        if tensor.order is not None:
            restored = np.empty_like(error)
            restored[tensor.order] = error  # the curvature knows the rows in the module's order
            error = restored
        yield Choice(kind, packed.nbytes, curvature.cost(torch.from_numpy(error)) if curvature else 0.0)
