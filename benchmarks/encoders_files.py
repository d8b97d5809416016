"""Files of one teacher's weights: what edgekit picks from, what others make of them in this environment, and how either
is scored."""

from __future__ import annotations

import shutil

from benchmarks.encoders_bed import THREADS, Bed
from edgekit.artifact import Artifact, Format, entries
from edgekit.evaluate import judge, predict
from edgekit.formats.openvino_ir import library, write_openvino
from edgekit.stages.base import Context
from edgekit.stages.export import Export, copy_deployable, draft, require_task
from edgekit.stages.quantize import Quantize, calibration_feeds
from edgekit.tasks.base import Judged

__all__ = ["BASE", "DYNAMIC", "NNCF", "SAMPLES", "beside", "closed", "judged", "own_files", "peer_files", "plain"]

BASE, DYNAMIC, NNCF = "fp32", "quantize_dynamic", "openvino+nncf"
SAMPLES = 256  # rows to calibrate on


def plain(bed: Bed, teacher: Artifact) -> Artifact:
    """1x: the teacher in ONNX, as ONNX Runtime takes it."""
    return bed.stage("export", Export(format="onnx", rewrite=False), teacher.path, BASE)


def own_files(bed: Bed, teacher: Artifact) -> dict[str, Artifact]:
    """What edgekit picks from: int8 files of two runtimes."""
    onnx = bed.stage("export", Export(format="onnx"), teacher.path, "onnx-f32")
    openvino = bed.stage("export", Export(format="openvino"), teacher.path, "openvino-f32")
    return {
        "onnx int8-dynamic": bed.stage("quantize", Quantize(method="int8-dynamic"), onnx.path, "onnx-dynamic"),
        "onnx int8-static": bed.stage("quantize", Quantize(method="int8-static"), onnx.path, "onnx-static"),
        "openvino int8-nncf": bed.stage("quantize", Quantize(method="int8-nncf"), openvino.path, "openvino-nncf"),
    }


def peer_files(bed: Bed, base: Artifact) -> dict[str, Artifact]:
    """`quantize_dynamic` per channel, and OpenVINO quantized by NNCF as its guide says, both of the file `base`."""
    openvino = library()  # first: it keeps nncf, too, from reporting that it is used
    import nncf
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    dynamic = beside(bed, base, "peer-dynamic", "onnx")
    types = {"DefaultTensorType": onnx.TensorProto.FLOAT}  # behind the attention it cannot tell, and asks for this
    quantize_dynamic(
        base.model_file, dynamic.model_file, per_channel=True, weight_type=QuantType.QInt8, extra_options=types
    )
    static = beside(bed, base, "peer-nncf", "openvino")
    whole = bed.folder / "peer-nncf-f32.xml"  # its weights stay mapped while it is open: not the file that is written
    write_openvino(base.model_file, whole)
    feeds = list(calibration_feeds(base, SAMPLES, Context(data=bed.tables)))
    model = openvino.Core().read_model(whole)
    model = nncf.quantize(model, nncf.Dataset(feeds), subset_size=SAMPLES, model_type=nncf.ModelType.TRANSFORMER)
    openvino.save_model(model, static.model_file, compress_to_fp16=False)
    return {DYNAMIC: closed(dynamic), NNCF: closed(static)}


def beside(bed: Bed, base: Artifact, name: str, file_format: Format) -> Artifact:
    """A folder as `base` is, without its model."""
    out = bed.folder / name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    copy_deployable(base.path, out, base.model_file.name)
    return draft(out, file_format, require_task(base))


def closed(file: Artifact) -> Artifact:
    """The folder once its model is there: with its files, and so with its size."""
    return Artifact(file.path, file.manifest.model_copy(update={"files": entries(file.path)}))


def judged(file: Artifact, bed: Bed) -> Judged:
    """On the test data, each example by itself."""
    test = bed.tables["test"]
    return judge(file, predict(file, test, threads=THREADS), test)
