"""Baselines: what is kept of a report, what an update tells, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import report_sample

from edgekit.artifact import Task
from edgekit.baseline import (
    Baseline,
    changes,
    check_same,
    check_worth,
    load_baseline,
    reduce,
    updated,
    write_baseline,
)
from edgekit.correctness import Correctness
from edgekit.errors import UsageError
from edgekit.report.schema import Instructions, Report, dump
from edgekit.statistics import Chance

TASK = Task(labels=("on", "off"), max_length=8)
DATE = "2026-01-02T03:04:05+00:00"


def report(**int8: Any) -> Report:
    """The sample's int8 and q8 files; int8 changed."""
    whole = report_sample.sample()
    answers = Correctness.pack([True, False, True], "d" * 64)
    full = {"correctness": answers, "instructions": Instructions(median=8e7, spread=0.001, n=8), "artifact": "a" * 64}
    first = whole.deployables[0].model_copy(update={**full, "path": "/somewhere/int8", **int8})
    return whole.model_copy(update={"deployables": (first, whole.deployables[2]), "task": TASK})


def test_it_reads_back_and_holds_no_paths_of_the_machine(tmp_path: Path) -> None:
    kept = reduce(report())
    path = tmp_path / "kept" / "baseline.json"
    write_baseline(kept, path)
    assert load_baseline(path) == kept
    text = path.read_text(encoding="utf-8")
    assert "/somewhere" not in text
    assert len(text) < 20_000
    file = kept.file("int8")
    assert file is not None
    assert (file.size_bytes, file.artifact, file.correctness is not None) == (3_720_000, "a" * 64, True)
    assert kept.conditions is not None
    assert (kept.task, kept.machine.cpu) == (TASK, "AMD EPYC 7B13")
    assert not [entry for entry in path.parent.iterdir() if entry != path]


def test_a_report_is_a_baseline_too(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(dump(report()), encoding="utf-8")
    assert load_baseline(path) == reduce(report())


def test_an_update_tells_and_keeps_what_changed() -> None:
    smaller = report(size_bytes=3_000_000, metrics={"accuracy": 0.92}, artifact="b" * 64)
    made = updated(reduce(report()), smaller, " half the vocabulary ", DATE)
    (entry,) = made.history
    assert (entry.reason, entry.date) == ("half the vocabulary", DATE)
    told = [str(change) for change in entry.changes]
    assert "int8: size 3.72MB -> 3MB" in told
    assert "int8: accuracy 92.50% -> 92.00%" in told
    assert "int8: macro_f1 92.20% -> nothing" in told
    assert f"int8: artifact {'a' * 12} -> {'b' * 12}" in told
    assert not [line for line in told if line.startswith("q8") or "latency" in line]
    again = updated(made, smaller, "measured again", DATE)
    assert [len(update.changes) for update in again.history] == [len(told), 0]


def test_an_update_tells_what_was_measured_otherwise() -> None:
    whole = report()
    assert whole.conditions is not None
    elsewhere = {
        "machine": whole.machine.model_copy(update={"cpu": "Cortex-A72"}),
        "conditions": whole.conditions.model_copy(update={"target": "pi", "data": "other.csv", "rounds": 30}),
    }
    (entry,) = updated(reduce(whole), whole.model_copy(update=elsewhere), "a board", DATE).history
    told = ["machine AMD EPYC 7B13 -> Cortex-A72", "target cpu -> pi", "data test.csv -> other.csv"]
    assert [str(change) for change in entry.changes] == told
    answers = Correctness.pack([True, False, True], "e" * 64)
    (entry,) = updated(reduce(whole), report(correctness=answers), "more examples", DATE).history
    assert [str(change) for change in entry.changes] == [f"int8: test data {'d' * 12} -> {'e' * 12}"]
    blind = whole.model_copy(update={"conditions": None})
    assert "target cpu -> not known" in map(str, changes(reduce(whole), reduce(blind)))


def test_files_that_come_and_go_are_changes() -> None:
    both, one = reduce(report()), reduce(report().model_copy(update={"deployables": report().deployables[:1]}))
    assert [str(change) for change in changes(both, one)] == ["q8: file there -> removed"]
    assert [str(change) for change in changes(one, both)] == ["q8: file not there -> added"]


def test_an_update_is_refused_without_a_reason_or_at_chance() -> None:
    with pytest.raises(UsageError, match="needs a reason"):
        updated(reduce(report()), report(), "  ", DATE)
    chance = Chance(accuracy=0.1, majority_share=0.1, p_value=0.5, at_chance=True)
    poor = report().model_copy(update={"baseline_check": chance})
    with pytest.raises(UsageError, match="at chance level"):
        updated(reduce(report()), poor, "why not", DATE)
    with pytest.raises(UsageError, match="at chance level"):
        check_worth(poor)
    with pytest.raises(UsageError, match="no deployables"):
        reduce(report().model_copy(update={"deployables": ()}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": TASK.model_copy(update={"labels": ("on", "dim")})}, "another task: its 2 labels are not"),
        ({"task": TASK.model_copy(update={"pair": True})}, "another task: text-classification of pairs"),
        ({"deployables": (report().deployables[0].model_copy(update={"id": "bert"}),)}, "another model: it holds bert"),
    ],
)
def test_a_baseline_of_something_else_is_refused(change: dict[str, Any], words: str) -> None:
    other = reduce(report().model_copy(update=change))
    with pytest.raises(UsageError, match=words):
        check_same(report(), other)


def test_a_baseline_that_does_not_say_its_task_is_taken() -> None:
    check_same(report(), reduce(report().model_copy(update={"task": None})))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("{", "not JSON"),
        ("[]", "not a report of schema 1"),
        ('{"kind": "baseline", "schema": 2}', "schema 2; this edgekit reads 1"),
        ('{"kind": "baseline"}', "schema None"),
        ('{"kind": "baseline", "schema": 1}', "recipe: Field required"),
        ('{"schema": 3}', "not a report of schema 1"),
    ],
)
def test_a_file_that_is_none_is_told(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"baseline\.json") as caught:
        load_baseline(path)
    assert words in str(caught.value)
    assert caught.value.hint


def test_a_file_that_cannot_be_read_or_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_baseline(tmp_path / "absent.json")
    (tmp_path / "file").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not text"):
        load_baseline(tmp_path / "file")
    with pytest.raises(UsageError, match="cannot write"):
        write_baseline(reduce(report()), tmp_path / "file" / "baseline.json")


def test_a_baseline_without_files_is_told(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    empty: Baseline = reduce(report()).model_copy(update={"files": ()})
    write_baseline(empty, path)
    with pytest.raises(UsageError, match="holds no files"):
        load_baseline(path)
