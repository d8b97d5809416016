"""int8 of the same weights: the format and runtime that edgekit picks for each workload, against what others make.

Peers: `onnxruntime.quantization.quantize_dynamic` per channel, of the file with fused attention; OpenVINO of that file,
quantized by NNCF as its guide says. Files that keep less than 99.7% of the teacher's score do not count. Each workload
is measured twice: the first time to pick, the second time for the figures, so that luck does not choose.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from statistics import median

from benchmarks.encoders_bed import THREADS, Bed
from benchmarks.record import Figure
from edgekit.artifact import Artifact, Format
from edgekit.bench import measure
from edgekit.evaluate import judge, predict
from edgekit.formats.openvino_ir import library, write_openvino
from edgekit.runtimes.base import Workload
from edgekit.stages.base import Context
from edgekit.stages.export import Export, copy_deployable, draft
from edgekit.stages.quantize import Quantize, calibration_feeds

__all__ = ["figures"]

LENGTHS, BATCHES = (16, 32, 64, 128, 256), (1, 8)
KEPT = 0.997  # of the teacher's score
BASE, DYNAMIC, NNCF = "fp32", "quantize_dynamic", "openvino+nncf"
Shape = tuple[int, int]  # batch, length
Times = Mapping[str, float]  # file -> time of 1x / its time


def figures(bed: Bed) -> Iterator[Figure]:
    """Speed over fp32 of the picked file, over the best peer, and inside ONNX Runtime over `quantize_dynamic`."""
    base = bed.stage("export", Export(format="onnx", rewrite=False), bed.teacher.path, BASE)
    ours, peers = _ours(bed), _peers(bed, base)
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


def _ours(bed: Bed) -> dict[str, Artifact]:
    """What edgekit picks from: int8 files of two runtimes."""
    onnx = bed.stage("export", Export(format="onnx"), bed.teacher.path, "onnx-f32")
    openvino = bed.stage("export", Export(format="openvino"), bed.teacher.path, "openvino-f32")
    return {
        "onnx int8-dynamic": bed.stage("quantize", Quantize(method="int8-dynamic"), onnx.path, "onnx-dynamic"),
        "onnx int8-static": bed.stage("quantize", Quantize(method="int8-static"), onnx.path, "onnx-static"),
        "openvino int8-nncf": bed.stage("quantize", Quantize(method="int8-nncf"), openvino.path, "openvino-nncf"),
    }


def _peers(bed: Bed, base: Artifact) -> dict[str, Artifact]:
    openvino = library()  # first: it keeps nncf, too, from reporting that it is used
    import nncf
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    dynamic = _beside(bed, base, "peer-dynamic", "onnx")
    types = {"DefaultTensorType": onnx.TensorProto.FLOAT}  # behind the attention it cannot tell, and asks for this
    quantize_dynamic(
        base.model_file, dynamic.model_file, per_channel=True, weight_type=QuantType.QInt8, extra_options=types
    )
    static = _beside(bed, base, "peer-nncf", "openvino")
    plain = bed.folder / "peer-nncf-f32.xml"  # its weights stay mapped while it is open: not the file that is written
    write_openvino(base.model_file, plain)
    feeds = list(calibration_feeds(base, 256, Context(data=bed.tables)))
    model = openvino.Core().read_model(plain)
    model = nncf.quantize(model, nncf.Dataset(feeds), subset_size=256, model_type=nncf.ModelType.TRANSFORMER)
    openvino.save_model(model, static.model_file, compress_to_fp16=False)
    return {DYNAMIC: dynamic, NNCF: static}


def _beside(bed: Bed, base: Artifact, name: str, file_format: Format) -> Artifact:
    """A folder as `base` is, without its model."""
    out = bed.folder / name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    copy_deployable(base.path, out, base.model_file.name)
    return draft(out, file_format, bed.task)


def _good(files: Mapping[str, Artifact], base: Artifact, bed: Bed) -> dict[str, Artifact]:
    """Those that keep enough of the score, each example by itself."""
    wanted = KEPT * _score(base, bed)
    scores = {name: _score(file, bed) for name, file in files.items()}
    for name, score in scores.items():
        bed.progress.say(f"{name}: {score:.4f}, {wanted:.4f} wanted")
    return {name: file for name, file in files.items() if scores[name] >= wanted}


def _score(file: Artifact, bed: Bed) -> float:
    test = bed.tables["test"]
    return judge(file, predict(file, test, threads=THREADS), test).metrics["accuracy"]


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
