"""How much each column of a tensor matters: llama.cpp's importance matrix, measured by torch, by GGUF tensor names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import StageError
from edgekit.formats.gguf_decoder_types import TensorSpec
from edgekit.nn.curvature import importance
from edgekit.tasks.language_modeling import Windows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["column_importance", "module_paths"]


def module_paths(model: PreTrainedModel, tensors: Iterable[TensorSpec]) -> dict[str, str]:
    """Module path by GGUF name, of every matrix but the embeddings."""
    modules = dict(model.named_modules())
    paths = {}
    for spec in tensors:
        if spec.quantizable and spec.name != "token_embd.weight":
            path = spec.source.removesuffix(".weight")
            paths[spec.name] = path if path in modules else f"{model.base_model_prefix}.{path}"  # old GPT-2 files
    return paths


def column_importance(
    model: PreTrainedModel, tensors: Iterable[TensorSpec], windows: Windows
) -> dict[str, NDArray[np.float32]]:
    """Mean square of each input (columns,) of every matrix but the embeddings, by GGUF name, over all windows.

    Raises StageError where an input is not finite.
    """
    found = importance(model, windows)
    columns = {name: found[path].astype(np.float32) for name, path in module_paths(model, tensors).items()}
    broken = [name for name, values in columns.items() if not np.isfinite(values).all()]
    if broken:
        raise StageError(f"what {broken[0]} reads is NaN or infinite", hint="does the model work on these texts?")
    return columns
