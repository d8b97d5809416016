"""The fake stands in for a transport wherever one is taken."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_onnx

from edgekit.artifact import Artifact
from edgekit.bench import measure
from edgekit.data.table import Table
from edgekit.errors import DeviceError
from edgekit.evaluate import predict
from edgekit.jobs import Job
from edgekit.runtimes import Workload
from edgekit.transports.base import Transport
from edgekit.transports.fake import Fake, predicted, timed

TABLE = Table(("on", "off"), name="test")


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return tiny_onnx.make(tmp_path / "tiny")


def test_predictions_are_what_it_was_told(artifact: Artifact) -> None:
    fake: Transport = Fake(lambda job: predicted([[1.0, 0.0, len(text)] for text in job.inputs.texts]))
    assert predict(artifact, TABLE, transport=fake).logits.tolist() == [[1, 0, 2], [1, 0, 3]]


def test_times_are_what_it_was_told(artifact: Artifact, tmp_path: Path) -> None:
    slow = tiny_onnx.make(tmp_path / "slow")
    fake = Fake(lambda job: timed(2.0 if job.artifact is slow else 1.0))
    workload = Workload(items=2, rounds=2, seconds=0.1, throughput_batches=(), threads=1)
    bench = measure({"base": artifact, "slow": slow}, "base", TABLE, workload, transport=fake)
    assert bench.measurements["slow"].speedup is not None
    assert bench.measurements["slow"].speedup.value == pytest.approx(0.5)
    assert len(fake.ran) == 2


def test_it_has_the_libraries_it_was_told() -> None:
    fake = Fake({}, name="phone", versions={"onnxruntime": "1.24.0"})
    assert fake.probe(("onnxruntime", "torch")).libraries == {"onnxruntime": "1.24.0", "torch": "absent"}
    assert fake.identity(("onnxruntime",)) == {"cpu": "phone", "isa": "", "onnxruntime": "1.24.0"}


def test_it_fails_as_it_was_told(artifact: Artifact) -> None:
    def unplugged(job: Job) -> dict[str, object]:
        raise DeviceError("unplugged")

    with pytest.raises(DeviceError, match="unplugged"):
        predict(artifact, TABLE, transport=Fake(unplugged))  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match=r"odd \(bad_model\)"):
        predict(artifact, TABLE, transport=Fake({"error": {"kind": "bad_model", "message": "odd"}}))
