"""`encoder-int8`, `quantize-only` and `prune-without-training` on other tasks than texts, from their usual columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.api import run, run_stage
from edgekit.artifact import Task, TaskKind
from edgekit.data.load import load_table
from edgekit.library import find_recipe
from edgekit.recipe import Scalar
from edgekit.report.schema import Report
from edgekit.stages.finetune import Finetune
from edgekit.tasks.encoders import ENCODER_TASKS, columns_of, score_of
from tests.conftest import write_tiny
from tests.recipes.support import quick_recipe
from tests.recipes.test_question_recipe import write_questions
from tests.recipes.test_token_recipe import write_sentences
from tests.tiny_pictures import write_digits, write_vit

LENGTH = 24


def run_on(recipe: str, kind: TaskKind, train: str, test: str, base: Path, length: int, *overrides: str) -> Report:
    """A model taught a little, and the recipe on it; all beside `base`."""
    columns, folder = columns_of(kind), base.parent
    tables = {"train": load_table(train, columns), "validation": load_table(test, columns)}
    labels = ENCODER_TASKS[kind].labels(tables["train"])
    task = Task(kind=kind, labels=labels, max_length=length, pair=bool(columns.pair), overlap=8)
    settings = Finetune(epochs=2, batch_size=8, learning_rate=0.003)
    where = {"store": folder / "store", "device": "cpu", "threads": 1}
    run_stage("finetune", settings, str(base), folder / "taught", tables=tables, task=task, **where)  # type: ignore[arg-type]
    given: dict[str, Scalar] = {"model": str(folder / "taught"), "test": test, "calibration": train, "task": kind}
    given |= {} if kind == "image-classification" else {"max_length": length}
    source = quick_recipe(find_recipe(recipe), folder / "recipe.yaml")
    report = run(source, given, folder / "out", overrides=overrides, **where)  # type: ignore[arg-type]
    assert report.baseline is not None and score_of(kind) in report.baseline.metrics
    assert all(file.accuracy_drop is not None and file.speedup is not None for file in report.deployables)
    assert report.gate is not None
    (drop,) = (rule for rule in report.gate.rules if rule.rule.startswith("score_drop"))
    assert drop.value is not None and "score_drop" in drop.sentence
    return report


def test_questions_in_three_files_of_two_runtimes(tmp_path: Path) -> None:
    pytest.importorskip("nncf", reason="needs pip install 'edgekit[openvino]'")
    train, test = (write_questions(tmp_path / f"{seed}.json", 12, seed) for seed in (0, 1))
    base = write_tiny(tmp_path / "bert", "bert", head=False)
    report = run_on("encoder-int8", "question-answering", train, test, base, LENGTH)
    assert [file.id for file in report.deployables] == ["onnx-int8", "onnx-int8-static", "openvino-int8"]


def test_labelled_words_are_not_needed_to_trim(tmp_path: Path) -> None:
    train, test = (write_sentences(tmp_path / f"{seed}.conll", 30, seed) for seed in (0, 1))
    base = write_tiny(tmp_path / "bert", "bert", head=False)
    small = ("trim.budget=size", "trim.round_to=8")  # what is measured takes a minute; a unit test has it
    report = run_on("prune-without-training", "token-classification", train, test, base, LENGTH, *small)
    assert report.baseline is not None and report.deployables[0].size_bytes < report.baseline.size_bytes


def test_pictures_as_they_are_without_what_has_no_runtime_for_them(tmp_path: Path) -> None:
    train, test = (str(write_digits(tmp_path / str(rows.start), rows)) for rows in (range(100), range(100, 130)))
    base = write_vit(tmp_path / "vit", labels=2, heads=4, ffn=64, image_size=28, patch_size=7)
    report = run_on("quantize-only", "image-classification", train, test, base, 17)
    assert [file.id for file in report.deployables] == ["onnx-int8", "onnx-int4"]
    assert any("gguf-q8 are left out" in note for note in report.notes)
