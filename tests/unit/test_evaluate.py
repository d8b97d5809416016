"""Accuracy of files: computed by their runtime, kept by content, compared in pairs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import tiny_onnx

from edgekit.artifact import Artifact
from edgekit.data.table import Table
from edgekit.errors import DataError, DeviceError, StoreError
from edgekit.evaluate import judge, paired_drop, predict
from edgekit.jobs import Completed, Fidelity, Job
from edgekit.machine import Machine
from edgekit.runtimes.onnxruntime import ONNXRUNTIME
from edgekit.transports import LOCAL
from edgekit.transports.fake import Fake, predicted

TEXTS = ("on please", "off", "dim dim on", "off off dim", "on on", "off please")
TABLE = Table(TEXTS, labels=("on", "off", "dim", "off", "off", "off"), name="test")


@dataclass
class Counting:
    """The local transport, counting its jobs; `where` is what it says of itself."""

    where: str = "here"
    jobs: list[Job] = field(default_factory=list)
    name: str = "counting"
    fidelity: Fidelity = "measured"

    def probe(self, packages: tuple[str, ...] = ()) -> Machine:
        return LOCAL.probe(packages)

    def identity(self, libraries: tuple[str, ...]) -> dict[str, str]:
        return {"where": self.where}

    def run(self, job: Job) -> Completed:
        self.jobs.append(job)
        return LOCAL.run(job)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return tiny_onnx.make(tmp_path_factory.mktemp("made") / "good")


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return tiny_onnx.make(tmp_path_factory.mktemp("made") / "wrong", wrong=True)


def test_the_files_own_accuracy(good: Artifact, wrong: Artifact) -> None:
    ours, theirs = predict(good, TABLE, threads=1), predict(wrong, TABLE, threads=1)
    judged = judge(good, ours, TABLE)
    assert judged.metrics["accuracy"] == pytest.approx(5 / 6)
    assert judge(wrong, theirs, TABLE).metrics["accuracy"] == pytest.approx(2 / 6)
    assert (judged.answers == judged.truth).tolist() == [True] * 4 + [False, True]
    assert ours.peak_rss_bytes > 0


def test_predictions_are_kept(good: Artifact, wrong: Artifact, tmp_path: Path) -> None:
    transport = Counting()
    first = predict(good, TABLE, cache=tmp_path, transport=transport)
    again = predict(good, TABLE, cache=tmp_path, transport=transport, threads=2)
    assert (first.cached, again.cached, len(transport.jobs)) == (False, True, 1)
    np.testing.assert_array_equal(first.logits, again.logits)
    assert (first.runtime, first.version, first.providers) == (again.runtime, again.version, again.providers)
    predict(good, Table(TEXTS[:2]), cache=tmp_path, transport=transport)
    predict(wrong, TABLE, cache=tmp_path, transport=transport)
    predict(good, TABLE, cache=tmp_path, transport=transport, batch=2)
    transport.where = "another processor"
    predict(good, TABLE, cache=tmp_path, transport=transport)
    assert len(transport.jobs) == 5
    assert len(list(tmp_path.iterdir())) == 5


def test_what_is_kept_is_told_apart_by_provider_files_and_task(good: Artifact, tmp_path: Path) -> None:
    fake = Fake(lambda job: predicted([[1.0, 0.0, float(len(fake.ran))]] * len(job.inputs.texts)))
    predict(good, TABLE, transport=fake, cache=tmp_path)
    gpu = {"onnx": replace(ONNXRUNTIME, provider="CUDAExecutionProvider")}
    assert not predict(good, TABLE, transport=fake, runtimes=gpu, cache=tmp_path).cached
    other = tiny_onnx.make(tmp_path / "other", wrong=True, manifest={"key": good.key})  # as retraining makes it
    assert not predict(other, TABLE, transport=fake, cache=tmp_path).cached
    assert good.task is not None
    shorter = good.manifest.model_copy(update={"task": good.task.model_copy(update={"max_length": 4})})
    assert not predict(Artifact(good.path, shorter), TABLE, transport=fake, cache=tmp_path).cached
    assert predict(good, TABLE, transport=fake, cache=tmp_path).cached


def test_threads_are_the_targets_own_and_limits_grow_where_it_emulates(good: Artifact) -> None:
    fake = Fake(predicted([[1.0, 0.0, 0.0]] * len(TABLE)))
    slow = replace(fake, fidelity="emulated", ran=[])
    for transport in (fake, slow):
        predict(good, TABLE, transport=transport)
        predict(good, TABLE, transport=transport, threads=3)
    assert [work.threads for work in fake.ran] == [1, 3]  # its one core; what was asked for
    assert slow.ran[0].timeout == 60 * fake.ran[0].timeout


def test_a_damaged_cache_is_computed_anew(good: Artifact, tmp_path: Path) -> None:
    transport = Counting()
    first = predict(good, TABLE, cache=tmp_path, transport=transport)
    for damage in (b"", b"garbage", next(tmp_path.iterdir()).read_bytes()[:-4]):
        next(tmp_path.iterdir()).write_bytes(damage)
        again = predict(good, TABLE, cache=tmp_path, transport=transport)
        assert not again.cached
        np.testing.assert_array_equal(first.logits, again.logits)


def test_an_unwritable_cache_is_told(good: Artifact, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        predict(good, TABLE, cache=tmp_path / "file" / "cache")


def test_bad_input_is_told(good: Artifact, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="empty"):
        predict(good, Table(()))
    with pytest.raises(DeviceError, match="no task"):
        predict(tiny_onnx.make(tmp_path / "mute", manifest={"task": None}), TABLE)
    assert good.task is not None
    more = good.task.model_copy(update={"labels": (*good.task.labels, "another")})
    with pytest.raises(DeviceError, match=r"logits \(6, 3\) instead of \(6, 4\)"):
        predict(tiny_onnx.make(tmp_path / "more", manifest={"task": more}), TABLE)


def test_paired_drop() -> None:
    parent = np.array([True] * 90 + [False] * 10)
    child = parent.copy()
    child[:6], child[95:97] = False, True
    drop = paired_drop(parent, child)
    assert drop.value == pytest.approx(0.04)
    assert drop.low < 0.04 < drop.high
    assert drop.p_value == pytest.approx(2 * (1 + 8 + 28) / 256)
    unpaired = 1.96 * np.sqrt(0.9 * 0.1 / 100 + 0.86 * 0.14 / 100)
    assert drop.high - drop.low < 2 * unpaired  # pairing must pay
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_drop(parent, child[:50])
