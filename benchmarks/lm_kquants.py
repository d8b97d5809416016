"""Quality per byte of GGUF files: types and rounding by edgekit against llama.cpp's K-quants with an importance matrix.

    python -m benchmarks.lm_kquants [--quick] [--json]

Both see the same calibration text, both files are run by stock llama.cpp on text that neither saw, and ours is not
larger. The value is the ratio of the mean KL divergences from the f16 file, ours / theirs (below 1: we are nearer).
"""

from __future__ import annotations

import ctypes
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import Figure, arguments, data_folder, keep
from edgekit.artifact import Task
from edgekit.data.table import Table
from edgekit.errors import StageError, UsageError
from edgekit.formats.ggml import row_bytes
from edgekit.formats.gguf_decoder import decoder_tensors, preset_types, write_gguf_decoder
from edgekit.formats.gguf_decoder_check import Llama
from edgekit.formats.gguf_decoder_importance import column_importance
from edgekit.formats.gguf_kquants import plan_rounding
from edgekit.formats.gguf_quantize import captured_log, tensor_types
from edgekit.nn.decoders import load_decoder
from edgekit.tasks.language_modeling import Windows, make_windows

PRESETS = {"gguf.kld_ratio_q4km": "q4_k_m", "gguf.kld_ratio_q2k": "q2_k"}
LENGTH = 256
CALIBRATION = 0.8  # of each text; what comes after it is held out
Floats = NDArray[np.float32]
Divergences = NDArray[np.float64]


def main() -> None:
    options = arguments("GGUF files of the same size: KL divergence from the original")
    sets = data_folder()
    if sets is None:
        raise UsageError("the shared data sets are not beside the checkout")
    model = sets.parent / "models" / "llama-6m"
    calibration, held_out = texts(model, sets, quick=options.quick)
    importance = column_importance(load_decoder(model), decoder_tensors(model), calibration)
    with tempfile.TemporaryDirectory() as scratch:
        reference = Path(scratch) / "f16.gguf"
        write_gguf_decoder(model, reference, preset_types(model, "f16"))
        figures = []
        for name, preset in PRESETS.items():
            peer, ours = Path(scratch) / f"{preset}.gguf", Path(scratch) / f"{preset}-ours.gguf"
            llama_quantize(reference, peer, preset, importance)
            began = time.monotonic()
            plan = plan_rounding(model, calibration, budget=tensor_bytes(peer, model))
            write_gguf_decoder(model, ours, plan.types, encode=plan.encode)
            took = time.monotonic() - began
            figures.append(compare(name, {"peer": peer, "ours": ours}, reference, held_out, took))
    keep("lm_kquants", figures, options)


def texts(model: Path, sets: Path, *, quick: bool) -> tuple[Windows, Windows]:
    """Windows to calibrate on and windows to measure on, of stories, plays and Wikipedia; the questions' contexts of
    XQuAD are Wikipedia that the model never saw."""
    sources = {
        "wikitext2": (sets / "wikitext2_raw" / "wiki.valid.raw").read_text(encoding="utf-8"),
        "tinystories": (sets / "tinystories" / "tinystories_head.txt").read_text(encoding="utf-8"),
        "tinyshakespeare": (sets / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8"),
    }
    articles = json.loads((sets / "xquad" / "xquad.en.json").read_text(encoding="utf-8"))["data"]
    xquad = "\n".join(paragraph["context"] for article in articles for paragraph in article["paragraphs"])
    cuts = {name: int(CALIBRATION * len(text)) for name, text in sources.items()}
    seen = {name: text[: cuts[name]] for name, text in sources.items()}
    unseen = {name: text[cuts[name] :] for name, text in sources.items() if name != "tinyshakespeare"}
    most = 4 if quick else 32
    return join(model, seen, most), join(model, {**unseen, "xquad": xquad}, most)


def join(model: Path, sources: Mapping[str, str], most: int) -> Windows:
    task = Task(kind="language-modeling", max_length=LENGTH)
    parts = [make_windows(model, Table((text,), name=name), task, most=most) for name, text in sources.items()]
    return Windows(np.concatenate([part.ids for part in parts]), parts[0].scored_from)


def llama_quantize(source: Path, out: Path, preset: str, importance: Mapping[str, Floats]) -> None:
    """llama.cpp's own quantizer with this importance matrix."""
    from llama_cpp import llama_cpp as llama

    matrix = (llama.llama_model_imatrix_data * (len(importance) + 1))()  # the last one stays empty: the end mark
    held = [np.ascontiguousarray(values, dtype=np.float32) for values in importance.values()]
    for slot, name, values in zip(matrix, importance, held, strict=False):
        slot.name, slot.size = name.encode(), values.size
        slot.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    params = llama.llama_model_quantize_default_params()
    params.ftype = getattr(llama, f"LLAMA_FTYPE_MOSTLY_{preset.upper()}")
    params.imatrix = matrix
    with captured_log(llama) as lines:
        llama.llama_backend_init()
        status = llama.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(params))
    if status != 0:
        raise StageError(f"llama.cpp could not quantize to {preset}", hint=" ".join(lines[-2:]))


def tensor_bytes(file: Path, model: Path) -> int:
    """What the tensors that may be quantized take in the file."""
    quantizable = {spec.name for spec in decoder_tensors(model) if spec.quantizable}
    found = {name: entry for name, entry in tensor_types(file).items() if name in quantizable}
    return sum(shape[0] * row_bytes(kind, shape[1]) for kind, shape in found.values())


def compare(name: str, files: Mapping[str, Path], reference: Path, held_out: Windows, took: float) -> Figure:
    wanted = log_probabilities(reference, held_out)
    found = {who: divergences(wanted, log_probabilities(file, held_out)) for who, file in files.items()}
    sizes = {who: file.stat().st_size for who, file in files.items()}
    if sizes["ours"] > sizes["peer"]:
        raise StageError(f"our file has {sizes['ours']:,} bytes, theirs {sizes['peer']:,}")
    draws = np.random.default_rng(0).integers(0, len(held_out), (2000, len(held_out)))
    ratios = found["ours"][draws].sum(1) / found["peer"][draws].sum(1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    means = {who: float(values.mean()) for who, values in found.items()}
    return Figure(
        figure=name,
        value=means["ours"] / means["peer"],
        unit="KL divergence, ours / theirs",
        low=float(low),
        high=float(high),
        against=f"llama.cpp's {files['peer'].stem} with an importance matrix",
        n=held_out.scored,
        conditions=f"llama-6m, {sizes['ours']:,} bytes (theirs {sizes['peer']:,}), KL divergence {means['ours']:.5f} "
        f"(theirs {means['peer']:.5f}) from f16, stock llama.cpp, held-out WikiText-2, TinyStories and XQuAD, "
        f"windows of {LENGTH}, second halves; planned and written in {took:.0f} s",
    )


def log_probabilities(file: Path, windows: Windows) -> list[Floats]:
    """(tokens, vocabulary) of each window's tokens that count."""
    with Llama(file, LENGTH) as model:
        logits = [model.logits(ids)[windows.scored_from :] for ids in windows.ids]
    return [values - np.logaddexp.reduce(values, axis=1, keepdims=True) for values in logits]


def divergences(wanted: list[Floats], found: list[Floats]) -> Divergences:
    """Mean KL divergence, in nats a token, of each window (windows,)."""
    return np.asarray([(np.exp(p) * (p - q)).sum(1).mean(dtype=np.float64) for p, q in zip(wanted, found, strict=True)])


if __name__ == "__main__":
    main()
