"""The same integers in two formats: what is left between a Q4 GGUF file and int4 for onnxruntime-genai is kernels.

`lm-quantize` finds integers and scales once, `lm-export` packs them; each file is run by its own runtime (llama.cpp and
onnxruntime-genai at accuracy level 4: both turn activations to 8 bits) and held against torch in float32. So are the
int4 folders of others: of onnxruntime-genai's builder alone, and of Olive, which has it and its own GPTQ before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.decoders_bed import DRAWS, LENGTH, Bed, Doubles, bootstrap
from benchmarks.record import OLIVE, Figure, peer_python, run_peer
from edgekit.artifact import Artifact, entries
from edgekit.evaluate_lm import reference_of, score_windows
from edgekit.stages.export import draft
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

    for figure, (kind, symmetric) in GRIDS.items():
        files = write_files(bed, scratch / kind, symmetric)
        found = {name: divergences(file) for name, file in files.items()}
        yield gap(figure, kind, found, bed)
        if symmetric:
            for peer, (against, file) in _peers(bed, scratch).items():
                yield beside(peer, against, found["genai"], divergences(file), files["genai"], file, bed)


def _peers(bed: Bed, scratch: Path) -> dict[str, tuple[str, Artifact]]:
    """By figure: whose int4 it is, and the folder."""
    alone = bed.stage("lm-export", FILES["genai"], bed.model, scratch / "builder", scratch / "store")
    olive = {kind: _olive(bed, scratch, kind) for kind in ("builder", "gptq")}
    return {
        "int4.kld_ratio_builder": ("int4 by onnxruntime-genai's builder alone", alone),
        "int4.kld_ratio_olive": ("int4 by Olive's ModelBuilder", olive["builder"]),
        "int4.kld_ratio_olive_gptq": ("int4 by Olive's Gptq and ModelBuilder, on the same windows", olive["gptq"]),
    }


def _olive(bed: Bed, scratch: Path, kind: str) -> Artifact:
    windows, out = scratch / "windows.npy", scratch / f"olive-{kind}"
    np.save(windows, bed.calibration.ids)
    run_peer(peer_python("olive", *OLIVE), "olive_decoder.py", bed.model, windows, out, kind)
    made = draft(out, "onnx-genai", bed.task)
    return Artifact(out, made.manifest.model_copy(update={"files": entries(out)}))


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


def beside(
    figure: str, against: str, ours: Doubles, theirs: Doubles, file: Artifact, peer: Artifact, bed: Bed
) -> Figure:
    """KL divergences of windows (windows,), ours and theirs, and the sizes of both."""
    low, high = bootstrap(ours, theirs)
    return Figure(
        figure=figure,
        value=float(ours.mean() / theirs.mean()),
        low=low,
        high=high,
        unit="KL divergence, ours / theirs",
        against=against,
        n=bed.held_out.scored,
        conditions=f"llama-6m, gptq, blocks of 32, symmetric; KL divergence {ours.mean():.5f} (theirs "
        f"{theirs.mean():.5f}) from torch float32 at accuracy level 4, {file.size_bytes:,} bytes (theirs "
        f"{peer.size_bytes:,})",
    )
