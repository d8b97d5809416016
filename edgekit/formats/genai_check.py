"""Whether an onnxruntime-genai folder is the model it was made from: probabilities close to torch's on real tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import MissingExtraError, StageError
from edgekit.formats.gguf_decoder_check import Difference
from edgekit.nn.decoders import load_decoder
from edgekit.tasks.language_modeling import Windows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["compare_genai"]

Logits = NDArray[np.float32]


def compare_genai(folder: Path, source: Path, windows: Windows) -> Difference:
    """Run `folder` by onnxruntime-genai and the checkpoint `source` by torch on the same windows.

    Where the folder holds the grids of `source`, whose weights are the grids' values, an accuracy level of 1 differs by
    the order of sums alone; level 4 by the rounding of activations to 8 bits, too.
    Raises StageError where onnxruntime-genai cannot load the folder, MissingExtraError where it is not installed.
    """
    torch_model, theirs = load_decoder(source), _open(folder)
    gaps, largest, divergences, same = [], [], [], []
    for ids in windows.ids:
        wanted = _torch_logits(torch_model, ids)[windows.scored_from - 1 : -1]
        found = _genai_logits(theirs, ids)[windows.scored_from - 1 : -1]
        gaps.append(float(np.abs(wanted - found).max()))
        largest.append(float(np.abs(wanted).max()))
        expected, told = _log_softmax(wanted), _log_softmax(found)
        divergences.append((np.exp(expected) * (expected - told)).sum(1))
        same.append(wanted.argmax(1) == found.argmax(1))
    return Difference(
        max_difference=max(gaps),
        largest_logit=max(largest),
        divergence=float(np.mean(divergences)),
        agreement=float(np.mean(same)),
        tokens=windows.scored,
    )


def _open(folder: Path) -> Any:
    try:
        import onnxruntime_genai
    except ModuleNotFoundError:
        raise MissingExtraError("onnxruntime-genai", "genai") from None
    try:
        return onnxruntime_genai.Model(str(folder))
    except RuntimeError as error:
        raise StageError(f"onnxruntime-genai cannot load {folder.name}: {str(error).splitlines()[0]}") from None


def _genai_logits(model: Any, ids: NDArray[np.int32]) -> Logits:
    import onnxruntime_genai

    params = onnxruntime_genai.GeneratorParams(model)
    params.set_search_options(max_length=len(ids) + 1)
    generator = onnxruntime_genai.Generator(model, params)
    generator.append_tokens(ids)
    return np.asarray(generator.get_output("logits")[0], dtype=np.float32)


def _torch_logits(model: PreTrainedModel, ids: NDArray[np.int32]) -> Logits:
    import torch

    with torch.inference_mode():
        logits: Logits = model(input_ids=torch.from_numpy(ids).long()[None]).logits[0].float().numpy()
    return logits


def _log_softmax(logits: Logits) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return result
