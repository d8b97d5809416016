"""Quality per byte of GGUF files: types and rounding by edgekit against llama.cpp's K-quants with an importance matrix,
and against AutoRound's.

Both sides see the same calibration text, both files are run by stock llama.cpp on text that neither saw, and ours is
not larger. The value is the ratio of the mean KL divergences from the f16 file, ours / theirs (below 1: we are nearer).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from benchmarks.decoders_bed import LENGTH, Bed, bootstrap, divergences, llama_quantize, log_probabilities
from benchmarks.record import Figure, peer_python, run_peer
from edgekit.errors import StageError
from edgekit.formats.ggml import row_bytes
from edgekit.formats.gguf_decoder import decoder_tensors, preset_types, write_gguf_decoder
from edgekit.formats.gguf_decoder_importance import column_importance
from edgekit.formats.gguf_kquants import plan_rounding
from edgekit.formats.gguf_quantize import tensor_types
from edgekit.nn.decoders import load_decoder

__all__ = ["figures"]

AUTOROUND = ("torch==2.13.0", "auto-round==0.16.*", "transformers==5.23.*", "gguf", "sentencepiece")
PRESETS = {"gguf.kld_ratio_q4km": "q4_k_m", "gguf.kld_ratio_q2k": "q2_k"}


def figures(bed: Bed, scratch: Path) -> Iterator[Figure]:
    model = bed.model
    importance = column_importance(load_decoder(model), decoder_tensors(model), bed.calibration)
    reference = scratch / "f16.gguf"
    write_gguf_decoder(model, reference, preset_types(model, "f16"))
    for name, preset in PRESETS.items():
        peer = scratch / f"{preset}.gguf"
        llama_quantize(reference, peer, preset, importance)
        yield beside(name, f"llama.cpp's {preset} with an importance matrix", peer, reference, bed)
    yield beside("gguf.kld_ratio_autoround", "AutoRound's GGUF q4_k_m", autoround(bed, scratch), reference, bed)


def autoround(bed: Bed, scratch: Path) -> Path:
    """AutoRound's file of the same windows, with its own defaults."""
    python = peer_python("auto-round", *AUTOROUND)
    windows, out = scratch / "windows.npy", scratch / "autoround"
    np.save(windows, bed.calibration.ids)
    run_peer(python, "autoround_gguf.py", bed.model, windows, out, "q4_k_m")
    [file] = out.rglob("*.gguf")
    return file


def beside(name: str, against: str, peer: Path, reference: Path, bed: Bed) -> Figure:
    """A file of ours within the peer's size, written and compared."""
    ours = peer.with_name(f"{name}-ours.gguf")
    began = time.monotonic()
    plan = plan_rounding(bed.model, bed.calibration, budget=tensor_bytes(peer, bed.model), progress=bed.progress)
    write_gguf_decoder(bed.model, ours, plan.types, encode=plan.encode)
    took = time.monotonic() - began
    return compare(name, against, {"peer": peer, "ours": ours}, reference, bed, took)


def tensor_bytes(file: Path, model: Path) -> int:
    """What the tensors that may be quantized take in the file."""
    quantizable = {spec.name for spec in decoder_tensors(model) if spec.quantizable}
    found = {name: entry for name, entry in tensor_types(file).items() if name in quantizable}
    return sum(shape[0] * row_bytes(kind, shape[1]) for kind, shape in found.values())


def compare(name: str, against: str, files: Mapping[str, Path], reference: Path, bed: Bed, took: float) -> Figure:
    wanted = log_probabilities(reference, bed.held_out)
    found = {who: divergences(wanted, log_probabilities(file, bed.held_out)) for who, file in files.items()}
    sizes = {who: file.stat().st_size for who, file in files.items()}
    if sizes["ours"] > sizes["peer"]:
        raise StageError(f"our file has {sizes['ours']:,} bytes, theirs {sizes['peer']:,}")
    low, high = bootstrap(found["ours"], found["peer"])
    means = {who: float(values.mean()) for who, values in found.items()}
    return Figure(
        figure=name,
        value=means["ours"] / means["peer"],
        unit="KL divergence, ours / theirs",
        low=low,
        high=high,
        against=against,
        n=bed.held_out.scored,
        conditions=f"llama-6m, {sizes['ours']:,} bytes (theirs {sizes['peer']:,}), KL divergence {means['ours']:.5f} "
        f"(theirs {means['peer']:.5f}) from f16, stock llama.cpp, held-out WikiText-2, TinyStories and XQuAD, "
        f"windows of {LENGTH}, second halves; planned and written in {took:.0f} s",
    )
