"""How far an onnxruntime-genai folder's logits are from torch's, on real tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime_genai
import torch

from edgekit.nn.decoders import load_decoder
from edgekit.tasks.language_modeling import Windows


def largest_difference(folder: Path, source: Path, windows: Windows) -> float:
    """Of `folder` from the checkpoint `source`, at the tokens that count.

    Where the folder holds the grids of `source`, whose weights are the grids' values, an accuracy level of 1 differs by
    the order of sums alone; level 4 by the rounding of activations to 8 bits, too.
    """
    original, model = load_decoder(source), onnxruntime_genai.Model(str(folder))
    gaps = []
    for ids in windows.ids:
        counted = slice(windows.scored_from - 1, -1)
        with torch.inference_mode():
            wanted = original(input_ids=torch.from_numpy(ids).long()[None]).logits[0].numpy()[counted]
        params = onnxruntime_genai.GeneratorParams(model)
        params.set_search_options(max_length=len(ids) + 1)
        generator = onnxruntime_genai.Generator(model, params)
        generator.append_tokens(ids)
        found = np.asarray(generator.get_output("logits")[0], dtype=np.float32)[counted]
        gaps.append(float(np.abs(wanted - found).max()))
    return max(gaps)
