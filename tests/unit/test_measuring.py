"""Benchmarks through the API: what is checked and told before anything is measured, and what the report says of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import tiny_onnx

from edgekit.api import bench
from edgekit.artifact import Artifact
from edgekit.data.table import Table
from edgekit.errors import UsageError
from edgekit.measuring import Subject, make_report
from edgekit.progress import Silent
from edgekit.report.schema import Report
from edgekit.rules import parse_rules
from edgekit.runtimes import RUNTIMES, Workload
from edgekit.targets import Target
from edgekit.transports.fake import Fake, predicted, timed

TABLE = Table(("on", "off"), labels=("on", "off"), name="test")
WORKLOAD = Workload(items=2, rounds=2, seconds=0.1, throughput_batches=(), budget=0)


@dataclass
class Heard(Silent):
    """Keeps what is said."""

    lines: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.lines.append(text)


def reported(folder: Path, fake: Fake, rules: str = "") -> tuple[Report, list[str]]:
    artifacts = {name: tiny_onnx.make(folder / name) for name in ("base", "other")}
    subjects = {name: Subject(artifact, name) for name, artifact in artifacts.items()}
    heard = Heard()
    report, _ = make_report(
        "bench",
        subjects,
        "base",
        TABLE,
        WORKLOAD,
        parse_rules([rules], "rule") if rules else (),
        progress=heard,
        start=0.0,
        target=Target("board", "", fake, RUNTIMES),
    )
    return report, heard.lines


def board() -> Fake:
    answer = {**predicted([[1.0, 0.0, 0.0]] * 2), **timed(1.0)}
    return Fake(answer, name="board", versions={"onnxruntime": "1.24.0"})


def test_the_report_is_of_the_targets_machine_and_files(tmp_path: Path) -> None:
    report, _ = reported(tmp_path, board())
    assert report.machine.cpu == "board"
    assert report.machine.libraries["onnxruntime"] == "1.24.0"
    assert report.conditions is not None
    assert report.conditions.threads == 1  # the board's only core
    assert report.baseline is not None
    assert report.baseline.artifact == report.deployables[0].artifact == Artifact.open(tmp_path / "base").content


@pytest.mark.parametrize(("counted", "notes"), [((), 1), ((100, 200), 0)])
def test_a_core_without_counts_is_noted(tmp_path: Path, counted: tuple[int, ...], notes: int) -> None:
    fake = replace(board(), fidelity="emulated", instructions=counted)
    report, _ = reported(tmp_path, fake)
    assert [note.startswith("no instructions were counted") for note in report.notes] == [True] * notes


def test_too_few_examples_for_a_margin_are_told_first(tmp_path: Path) -> None:
    _, told = reported(tmp_path, board(), "accuracy_drop <= 1pt")
    assert "2 test examples are few" in told[0]


def test_folders_of_one_name_are_told(tmp_path: Path) -> None:
    folders = [tiny_onnx.make(tmp_path / name).path for name in ("a/x", "b/x", "c/baseline")]
    with pytest.raises(UsageError, match="of one name: baseline, x, baseline"):
        bench(folders, TABLE, WORKLOAD)


def test_an_out_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write to"):
        bench([tmp_path / "absent"], TABLE, WORKLOAD, out=tmp_path / "file" / "out")
