"""A pruned model that relearned, quantized, against the whole model at fewer bits in a file of the same size.

30% of the parameters go (half of each FFN), the rest learns from the original for some epochs, and `lm-export` writes
it at the size that llama.cpp's q4_k_m of it has. The other file is the original within that many bytes, by the same
stage: what types and rounding alone make of it. Both are scored and timed by llama.cpp, by turns.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.decoders_bed import LENGTH, Bed, bootstrap
from benchmarks.record import Figure
from edgekit.artifact import Artifact
from edgekit.bench_lm import measure_lm
from edgekit.evaluate_lm import reference_of, score_windows
from edgekit.runtimes import Workload
from edgekit.stages.lm_distill import LmDistill
from edgekit.stages.lm_export import LmExport
from edgekit.stages.lm_prune import LmPrune

__all__ = ["figures"]

PRUNE = LmPrune(ffn=0.5, round_to=32)
EPOCHS = 3
SIZES = ("q4_k_m", "q2_k")  # of the pruned model's file; the first is the figure's


def figures(bed: Bed, scratch: Path) -> Iterator[Figure]:
    store = scratch / "store"
    bed.stage("lm-prune", PRUNE, bed.model, scratch / "pruned", store)
    learn = LmDistill(epochs=1 if bed.quick else EPOCHS)
    small = bed.stage("lm-distill", learn, scratch / "pruned", scratch / "small", store, teacher=str(bed.model))
    reference = reference_of(bed.original, bed.held_out, scratch)
    for size in SIZES:
        pruned = bed.stage("lm-export", LmExport(budget=size), small.path, scratch / f"pruned-{size}", store)
        room = f"{pruned.size_bytes}B"
        whole = bed.stage("lm-export", LmExport(budget=room), bed.model, scratch / f"whole-{size}", store)
        yield from compared(bed, {"pruned": pruned, "whole": whole}, reference, "" if size == SIZES[0] else f".{size}")


def compared(bed: Bed, files: dict[str, Artifact], reference: Path, suffix: str) -> Iterator[Figure]:
    found = {}
    for name, file in files.items():
        scores = score_windows(file, bed.held_out, reference=reference)
        assert scores.kld is not None
        found[name] = scores.kld.mean(axis=1)
    low, high = bootstrap(found["pruned"], found["whole"])
    means = {name: float(values.mean()) for name, values in found.items()}
    sizes = {name: file.size_bytes for name, file in files.items()}
    against = "the whole model at fewer bits, by the same stage"
    told = f"llama-6m, {PRUNE.ffn:.0%} of each FFN gone, {EPOCHS} epochs; {sizes['pruned']:,} bytes (whole "
    told += f"{sizes['whole']:,})"
    yield Figure(
        figure=f"prune30.kld_ratio{suffix}",
        value=means["pruned"] / means["whole"],
        low=low,
        high=high,
        unit="KL divergence, pruned / whole",
        against=against,
        n=bed.held_out.scored,
        conditions=f"{told}, KL divergence {means['pruned']:.5f} (whole {means['whole']:.5f}) from torch float32, "
        f"held-out windows of {LENGTH}, second halves",
    )
    workload = Workload(rounds=4 if bed.quick else 12)
    bench = measure_lm(files, "whole", bed.held_out, workload).decode
    speedup = bench.measurements["pruned"].speedup
    assert speedup is not None
    yield Figure(
        figure=f"prune30.decode_speedup{suffix}",
        value=speedup.value,
        low=speedup.low,
        high=speedup.high,
        unit="x",
        against=against,
        n=bench.conditions.rounds,
        conditions=f"{told}, llama.cpp, decode steps after {bench.conditions.length} tokens, "
        f"{bench.conditions.threads} threads, by turns",
    )
