"""int8 of the same weights: the format and runtime that edgekit picks for each workload, against what others make.

Peers: `onnxruntime.quantization.quantize_dynamic` per channel, of the file with fused attention; OpenVINO of that file,
quantized by NNCF as its guide says. Files that keep less than 99.7% of the teacher's score do not count. Each workload
is measured twice: the first time to pick, the second time for the figures, so that luck does not choose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median

from benchmarks.encoders_bed import THREADS, Bed
from benchmarks.encoders_files import BASE, DYNAMIC, judged, own_files, peer_files, plain
from benchmarks.record import Figure
from edgekit.artifact import Artifact
from edgekit.bench import measure
from edgekit.runtimes.base import Workload

__all__ = ["figures"]

LENGTHS, BATCHES = (16, 32, 64, 128, 256), (1, 8)
KEPT = 0.997  # of the teacher's score
Shape = tuple[int, int]  # batch, length
Times = Mapping[str, float]  # file -> time of 1x / its time


def figures(bed: Bed) -> Iterator[Figure]:
    """Speed over fp32 of the picked file, over the best peer, and inside ONNX Runtime over `quantize_dynamic`."""
    base = plain(bed, bed.teacher)
    ours, peers = own_files(bed, bed.teacher), peer_files(bed, base)
    ours, peers = (_good(files, base, bed) for files in (ours, peers))
    files = {BASE: base, **ours, **peers}
    picked: dict[Shape, str] = {}
    found: dict[Shape, Times] = {}
    for batch in BATCHES[:1] if bed.quick else BATCHES:
        for length in LENGTHS[:2] if bed.quick else LENGTHS:
            first = _speeds(files, batch, length, bed, seed=0)
            picked[batch, length] = max(ours, key=lambda name: first[name])
            found[batch, length] = _speeds(files, batch, length, bed, seed=1)
            bed.progress.say(f"{batch} x {length}: {picked[batch, length]}, {found[batch, length]}")
    best = {shape: found[shape][picked[shape]] for shape in found}
    yield _figure("int8.speedup_best", best, "fp32 in ONNX Runtime, fully optimized", picked, median(best.values()))
    ahead = {shape: best[shape] / max(found[shape][name] for name in peers) for shape in found}
    yield _figure("int8.min_vs_best_peer", ahead, " and ".join(peers), picked, min(ahead.values()))
    if DYNAMIC in peers:
        own = [name for name, file in ours.items() if file.format == "onnx"]
        inside = {shape: max(found[shape][name] for name in own) / found[shape][DYNAMIC] for shape in found}
        yield _figure("int8.ort_median_vs_dynamic", inside, DYNAMIC, {}, median(inside.values()))


def _good(files: Mapping[str, Artifact], base: Artifact, bed: Bed) -> dict[str, Artifact]:
    """Those that keep enough of the score, each example by itself."""
    wanted = KEPT * _score(base, bed)
    scores = {name: _score(file, bed) for name, file in files.items()}
    for name, score in scores.items():
        bed.progress.say(f"{name}: {score:.4f}, {wanted:.4f} wanted")
    return {name: file for name, file in files.items() if scores[name] >= wanted}


def _score(file: Artifact, bed: Bed) -> float:
    return judged(file, bed).metrics["accuracy"]


def _speeds(files: Mapping[str, Artifact], batch: int, length: int, bed: Bed, *, seed: int) -> dict[str, float]:
    rounds = 2 if bed.quick else 5
    workload = Workload(
        batch=batch,
        length=length,
        items=8 * batch,
        threads=THREADS,
        rounds=rounds,
        seconds=2.0 if batch == 1 else 5.0,
        budget=0,
        throughput_batches=(),
        seed=seed,
    )
    found = measure(files, BASE, bed.tables["test"], workload).measurements
    return {name: one.speedup.value if one.speedup is not None else 1.0 for name, one in found.items()}


def _figure(
    name: str, by_shape: Mapping[Shape, float], against: str, picked: Mapping[Shape, str], value: float
) -> Figure:
    """`low`, `high`: the worst and the best shape."""
    told = ", ".join(
        f"{batch} x {length}: {ratio:.2f}{f' ({picked[batch, length]})' if picked else ''}"
        for (batch, length), ratio in by_shape.items()
    )
    return Figure(
        figure=name,
        value=value,
        low=min(by_shape.values()),
        high=max(by_shape.values()),
        unit="x",
        against=against,
        n=len(by_shape),
        conditions=f"batch x tokens, {THREADS} threads: {told}",
    )
