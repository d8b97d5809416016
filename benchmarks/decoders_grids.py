"""The same integers in two formats: what is left between a Q4 GGUF file and int4 for onnxruntime-genai is kernels.

`lm-quantize` finds integers and scales once, `lm-export` packs them; each file is run by its own runtime (llama.cpp and
onnxruntime-genai at accuracy level 4: both turn activations to 8 bits) and held against torch in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.decoders_bed import DRAWS, LENGTH, Bed, Doubles, bootstrap
from benchmarks.record import Figure
from edgekit.artifact import Artifact
from edgekit.evaluate_lm import reference_of, score_windows
from edgekit.stages.lm_export import LmExport
from edgekit.stages.lm_quantize import LmQuantize

__all__ = ["figures"]

FILES = {"gguf": LmExport(format="gguf", type="grids"), "genai": LmExport(format="onnx-genai", precision="int4")}
GRIDS = {"int4.format_gap": ("q4_0", True), "int4.format_gap_q4_1": ("q4_1", False)}


def figures(bed: Bed, scratch: Path) -> Iterator[Figure]:
    reference = reference_of(bed.original, bed.held_out, scratch)

    def divergences(file: Artifact) -> Doubles:
        scores = score_windows(file, bed.held_out, reference=reference)
        assert scores.kld is not None
        return np.asarray(scores.kld.mean(axis=1))

    peer = bed.stage("lm-export", FILES["genai"], bed.model, scratch / "builder", scratch / "store")
    theirs = divergences(peer)
    for figure, (kind, symmetric) in GRIDS.items():
        files = write_files(bed, scratch / kind, symmetric)
        found = {name: divergences(file) for name, file in files.items()}
        yield gap(figure, kind, found, bed)
        if symmetric:
            yield beside_builder(bed, found["genai"], theirs, files["genai"].size_bytes, peer.size_bytes)


def write_files(bed: Bed, folder: Path, symmetric: bool) -> dict[str, Artifact]:
    """By name: GGUF, and a folder of onnxruntime-genai's, of the same integers."""
    once = LmQuantize(method="gptq", symmetric=symmetric)
    bed.stage("lm-quantize", once, bed.model, folder / "int4", folder / "store")
    return {
        name: bed.stage("lm-export", config, folder / "int4", folder / name, folder / "store")
        for name, config in FILES.items()
    }


def gap(figure: str, kind: str, found: dict[str, Doubles], bed: Bed) -> Figure:
    """How far the two mean KL divergences are apart, as a share of the smaller."""
    draws = np.random.default_rng(0).integers(0, len(found["gguf"]), (DRAWS, len(found["gguf"])))
    means = {name: values[draws].mean(axis=1) for name, values in found.items()}
    apart = np.abs(means["gguf"] - means["genai"]) / np.minimum(means["gguf"], means["genai"])
    whole = {name: float(values.mean()) for name, values in found.items()}
    low, high = (float(end) for end in np.quantile(apart, [0.025, 0.975]))
    return Figure(
        figure=figure,
        value=abs(whole["gguf"] - whole["genai"]) / min(whole.values()),
        unit="1",
        low=low,
        high=high,
        against="the other format",
        n=bed.held_out.scored,
        conditions=f"llama-6m, gptq, {kind} of blocks of 32, 8-bit embeddings; KL divergence from torch float32: "
        f"{whole['gguf']:.6f} in llama.cpp, {whole['genai']:.6f} in onnxruntime-genai (accuracy level 4), held-out "
        f"windows of {LENGTH}, second halves",
    )


def beside_builder(bed: Bed, ours: Doubles, theirs: Doubles, size: int, peer_size: int) -> Figure:
    low, high = bootstrap(ours, theirs)
    return Figure(
        figure="int4.kld_ratio_builder",
        value=float(ours.mean() / theirs.mean()),
        low=low,
        high=high,
        unit="KL divergence, ours / theirs",
        against="int4 by onnxruntime-genai's builder alone",
        n=bed.held_out.scored,
        conditions=f"llama-6m, gptq, blocks of 32, symmetric; KL divergence {ours.mean():.5f} (theirs "
        f"{theirs.mean():.5f}) from torch float32 at accuracy level 4, {size:,} bytes (theirs {peer_size:,})",
    )
