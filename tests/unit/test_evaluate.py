"""Accuracy of files: computed by their runtime, kept by content, compared in pairs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import tiny_onnx

from edgekit.artifact import Artifact
from edgekit.data.table import Table
from edgekit.errors import DataError, DeviceError, StoreError
from edgekit.evaluate import Predictions, agreement, at_chance, correct, paired_drop, predict, score
from edgekit.jobs import Completed, Job
from edgekit.transports import LOCAL

TEXTS = ("on please", "off", "dim dim on", "off off dim", "on on", "off please")
TABLE = Table(TEXTS, labels=("on", "off", "dim", "off", "off", "off"), name="test")


@dataclass
class Counting:
    """The local transport, counting its jobs; `where` is what it says of itself."""

    where: str = "here"
    jobs: list[Job] = field(default_factory=list)
    name: str = "counting"

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


def made(labels: list[int]) -> Predictions:
    return Predictions(np.eye(3, dtype=np.float32)[labels], "none", "0")


def test_the_files_own_accuracy(good: Artifact, wrong: Artifact) -> None:
    assert good.task is not None
    ours, theirs = predict(good, TABLE, threads=1), predict(wrong, TABLE, threads=1)
    assert score(ours, TABLE, good.task)["accuracy"] == pytest.approx(5 / 6)
    assert score(theirs, TABLE, good.task)["accuracy"] == pytest.approx(2 / 6)
    assert correct(ours, TABLE, good.task).tolist() == [True] * 4 + [False, True]
    assert agreement(ours, theirs) == pytest.approx(1 / 6)
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


def test_a_lazy_classifier_is_at_chance(good: Artifact) -> None:
    assert good.task is not None
    table = Table(TEXTS * 20, labels=("on", "off", "dim", "off", "on", "off") * 20)
    lazy = at_chance(made([1] * 120), table, good.task)
    assert (lazy.at_chance, lazy.accuracy, lazy.majority_share) == (True, 0.5, 0.5)
    assert not at_chance(made([0, 1, 2, 1, 0, 1] * 20), table, good.task).at_chance
