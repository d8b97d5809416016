"""How much each column of a tensor matters: what llama.cpp calls an importance matrix, measured by torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import StageError
from edgekit.formats.gguf_decoder_types import TensorSpec
from edgekit.nn.decoder_statistics import batches, squares
from edgekit.nn.decoders import load_decoder
from edgekit.progress import Progress
from edgekit.tasks.language_modeling import Windows

__all__ = ["column_importance"]


def column_importance(
    folder: Path,
    tensors: Iterable[TensorSpec],
    windows: Windows,
    *,
    batch_size: int = 4,
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Mean square of each input (columns,) of every matrix but the embeddings, by GGUF tensor name, over all windows.

    Raises StageError where an input is not finite.
    """
    model = load_decoder(folder, device=device)
    modules = dict(model.named_modules())
    prefix = f"{model.base_model_prefix}."
    paths = {}
    for spec in tensors:
        path = spec.source.removesuffix(".weight")
        if spec.quantizable and spec.name != "token_embd.weight":
            paths[spec.name] = path if path in modules else prefix + path  # old GPT-2 files leave the prefix out
    found = squares(model, list(paths.values()), batches(windows, batch_size), progress)
    importance = {name: found[path].cpu().numpy().astype(np.float32) for name, path in paths.items()}
    broken = [name for name, values in importance.items() if not np.isfinite(values).all()]
    if broken:
        raise StageError(f"what {broken[0]} reads is NaN or infinite", hint="does the model work on these texts?")
    return importance
