"""Every architecture through the stages that change weights: trained, cut, factorized, taught by what it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.artifact import Artifact, Task
from edgekit.data.table import Table
from edgekit.errors import ModelError, StageError
from edgekit.nn.device import threads
from edgekit.nn.factored import size_of
from edgekit.nn.layers import depth
from edgekit.nn.load import load_classifier
from edgekit.shapes import next_shape, parameters, shape_of
from edgekit.stages.base import Context
from edgekit.stages.distill import Distill, distill
from edgekit.stages.export import Export
from edgekit.stages.factorize import Factorize, factorize
from edgekit.stages.finetune import Finetune, finetune
from edgekit.stages.prune import Prune, prune
from edgekit.stages.student import Student, student
from tests.tiny_architectures import ARCHITECTURES, write_architecture

LABELS = ("lost", "rate", "top")
CUES = ("lost card", "rate cash", "top up")
TEXTS = tuple(f"{word} {cue}" for word in ("please", "my", "is", "the") for cue in CUES)
TRAIN = Table(TEXTS, None, LABELS * 4, "train")
TASK = Task(labels=LABELS, max_length=16)
AS_GGUF = {"modernbert", "xlm-roberta"}  # what llama.cpp has: tests/unit/formats/test_gguf_*.py
FAST: dict[str, Any] = {"epochs": 1, "batch_size": 4, "precision": "fp32"}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threads(1):
        yield


def context(**more: Any) -> Context:
    return Context(data={"train": TRAIN, "validation": TRAIN}, task=TASK, **more)


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def artifact(folder: Path) -> Artifact:
    return Artifact.outside(folder, TASK)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_it_is_trained_cut_factorized_and_taught(name: str, tmp_path: Path) -> None:
    source = write_architecture(tmp_path / "source", name, layers=4)
    assert parameters(shape_of(artifact(source), TASK), TASK) == pytest.approx(
        size_of(load_classifier(source)), rel=0.02
    )
    trained = made(tmp_path / "trained")
    finetune(artifact(source), Finetune(**FAST), trained, context())
    cut = made(tmp_path / "cut")
    options = Prune(
        keep_layers=2, heads=0.3, ffn=0.5, round_to=4, vocabulary=True, vocabulary_keep="data", batch_size=4
    )
    facts = prune(artifact(trained), options, cut, context()).facts
    assert depth(load_classifier(cut)) == 2
    assert facts.numbers["error_repaired"] < facts.numbers["error_removed"]
    thin = made(tmp_path / "thin")
    factors = Factorize(modules=("attention", "ffn", "embedding"), budget=0.6, round_to=2, batch_size=4)
    outcome = factorize(artifact(cut), factors, thin, context())
    assert outcome.facts.changed
    taught = made(tmp_path / "taught")
    lesson = Distill(**FAST, hidden=1.0, relations=1.0)
    told = distill(artifact(thin), lesson, taught, context(teachers=(artifact(trained),)))
    assert told.facts.numbers["misaligned_rows"] == 0
    assert size_of(load_classifier(taught)) == outcome.facts.numbers["parameters_after"]


@pytest.mark.parametrize("width", [{}, {"hidden": 16, "heads": 2}], ids=["as wide", "narrower"])
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_a_student_starts_from_it(name: str, width: dict[str, int], tmp_path: Path) -> None:
    source, out = write_architecture(tmp_path / "source", name, layers=4), made(tmp_path / "out")
    facts = student(artifact(source), Student(layers=2, ffn=24, **width), out, context()).facts
    assert depth(load_classifier(out)) == 2
    total = len(load_classifier(out).state_dict())
    assert facts.numbers["tensors_carried_over"] == total


@pytest.mark.parametrize("name", sorted(ARCHITECTURES.keys() - AS_GGUF))
def test_gguf_is_refused_at_plan_time(name: str, tmp_path: Path) -> None:
    shape = shape_of(artifact(write_architecture(tmp_path / "source", name)), TASK)
    _, problems = next_shape(shape, "export", Export(format="gguf"), TASK, tmp_path / "source", {})
    assert problems and name in problems[0].what and "ONNX" in problems[0].hint


@pytest.mark.parametrize(("name", "limit"), [("xlm-roberta", 38), ("albert", 40)])
def test_texts_longer_than_the_model_takes_are_refused(name: str, limit: int, tmp_path: Path) -> None:
    source, long = write_architecture(tmp_path / "source", name), TASK.model_copy(update={"max_length": limit + 1})
    for stage, config, teacher in ((finetune, Finetune(), None), (distill, Distill(), artifact(source))):
        given = Context(data={"train": TRAIN, "validation": TRAIN}, task=long, teachers=(teacher,))
        with pytest.raises(ModelError, match=f"has {limit} positions"):
            stage(artifact(source), config, tmp_path, given)  # type: ignore[operator]


@pytest.mark.parametrize("name", ["xlm-roberta", "mpnet", "deberta-v2", "modernbert"])
def test_token_types_that_the_model_does_not_have_are_refused(name: str, tmp_path: Path) -> None:
    source = write_architecture(tmp_path / "source", name)
    given = Context(data={"train": TRAIN, "validation": TRAIN}, task=TASK.model_copy(update={"segments": True}))
    with pytest.raises(ModelError, match="token types"):
        finetune(artifact(source), Finetune(), tmp_path, given)


def test_what_shared_layers_rule_out_is_said_at_plan_time(tmp_path: Path) -> None:
    source = write_architecture(tmp_path / "source", "albert", layers=4, num_hidden_groups=2)
    shape = shape_of(artifact(source), TASK)
    _, problems = next_shape(shape, "prune", Prune(keep_layers=1, layer_choice="importance"), TASK, source, {})
    assert [problem.where for problem in problems] == ["layer_choice", "keep_layers"]
    assert next_shape(shape, "prune", Prune(keep_layers=2), TASK, source, {})[1] == []
    with pytest.raises(StageError, match="share their weights"):
        prune(artifact(source), Prune(keep_layers=2, layer_choice="importance"), made(tmp_path / "out"), context())
