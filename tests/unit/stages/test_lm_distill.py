from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from edgekit.artifact import Artifact, Task
from edgekit.errors import StageError
from edgekit.nn import train as loop
from edgekit.nn.decoders import load_decoder
from edgekit.nn.device import threads
from edgekit.nn.load import save_model
from edgekit.stages.base import Context, Outcome
from edgekit.stages.lm_distill import LmDistill, lm_distill
from tests.unit.killing import KillAfter, KilledError
from tests.unit.nn.lm_sample import real_model, shakespeare

TASK = Task(kind="language-modeling", max_length=64)
QUICK = LmDistill(epochs=1, batch_size=8, learning_rate=2e-3, precision="fp32")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threads(1):
        yield


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """stories260K without its second layer."""
    folder = real_model("stories260K")
    model = load_decoder(folder)
    del model.model.layers[1]
    model.config.num_hidden_layers -= 1
    save_model(model, tmp_path / "student", tokenizer_from=folder)
    return tmp_path / "student"


def context(**changes: object) -> Context:
    data = {"train": shakespeare(0, 60), "validation": shakespeare(1000, 15)}
    teacher = Artifact.outside(real_model("stories260K"), None)
    base: dict[str, object] = {"data": data, "task": TASK, "teachers": (teacher,)}
    return Context(**{**base, **changes})  # type: ignore[arg-type]


def run(student: Path, out: Path, config: LmDistill = QUICK, given: Context | None = None) -> Outcome:
    out.mkdir(exist_ok=True)
    return lm_distill(Artifact.outside(student, None), config, out, given or context())


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"top_k": 16},
        {"hidden": 1.0},
        {"temperature": 2.0, "alpha_hard": 0.1, "packing": "documents"},
        {"learn_from": "generations", "prompt": 8},
    ],
)
def test_a_student_without_a_layer_gets_back_a_quarter_of_the_divergence(
    student: Path, tmp_path: Path, extra: dict[str, object]
) -> None:
    given = context(scratch=tmp_path / "scratch" / "key")
    outcome = run(student, tmp_path / "out", LmDistill.model_validate(QUICK.model_dump() | extra), given)
    assert outcome.metrics["validation_kld"] < 0.75 * outcome.facts.numbers["kld_before"]
    assert not outcome.facts.warnings
    assert load_decoder(tmp_path / "out").config.num_hidden_layers == 4


@pytest.mark.parametrize("extra", [{}, {"top_k": 8}, {"hidden": 0.5}])
def test_a_killed_run_ends_with_the_same_file(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: dict[str, object]
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    config = LmDistill.model_validate(QUICK.model_dump() | extra)
    run(student, tmp_path / "whole", config)
    scratch = tmp_path / "scratch" / "key"
    with pytest.raises(KilledError):
        run(student, tmp_path / "killed", config, context(scratch=scratch, progress=KillAfter(5)))
    torch.manual_seed(1234)
    run(student, tmp_path / "resumed", config, context(scratch=scratch))
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "resumed")]
    assert files[0] == files[1]


def test_a_teacher_is_its_own_best_student(tmp_path: Path) -> None:
    config = QUICK.model_copy(update={"learning_rate": 1e-9})
    outcome = run(real_model("stories260K"), tmp_path / "out", config)
    assert outcome.facts.numbers["kld_before"] == pytest.approx(0.0, abs=1e-6)


def test_unlabeled_texts_are_learnt_from_too(student: Path, tmp_path: Path) -> None:
    data = {"train": shakespeare(0, 5), "unlabeled": shakespeare(5, 20), "validation": shakespeare(1000, 5)}
    more = run(student, tmp_path / "more", QUICK, context(data=data))
    less = run(student, tmp_path / "less", QUICK, context(data={n: t for n, t in data.items() if n != "unlabeled"}))
    assert more.facts.numbers["tokens"] > 3 * less.facts.numbers["tokens"]


def test_bad_input_is_told_plainly(student: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="needs a teacher"):
        run(student, tmp_path / "out", given=context(teachers=()))
    with pytest.raises(StageError, match="of the student's 512 tokens are not the teacher's"):
        run(student, tmp_path / "out", given=context(teachers=(Artifact.outside(real_model("babyllama105"), None),)))
    with pytest.raises(StageError, match="longer than the model's context"):
        run(student, tmp_path / "out", given=context(task=TASK.model_copy(update={"max_length": 600})))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"alpha_soft": 0.0}, "nothing to learn"),
        ({"hidden": 1.0, "top_k": 8}, "top_k saves nothing"),
        ({"data": "chats", "learn_from": "generations"}, "go on from texts"),
        ({"data": "chats", "packing": "stream"}, "see each other"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_the_reason(wrong: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        LmDistill.model_validate(wrong)


def test_every_setting_is_described() -> None:
    assert all(field.description for field in LmDistill.model_fields.values())
