from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from edgekit.artifact import Artifact, Task, TaskKind
from edgekit.data.augment import altered
from edgekit.data.table import Table
from edgekit.errors import DataError, StageError
from edgekit.nn import load
from edgekit.nn.device import threads
from edgekit.nn.head import head_labels
from edgekit.nn.load import load_classifier
from edgekit.progress import Silent
from edgekit.stages.base import Context, Outcome
from edgekit.stages.distill import Distill, Lesson, _beside, distill
from edgekit.stages.finetune import Finetune, finetune
from edgekit.tasks.encoders import examples_of
from tests.unit.killing import KillAfter, KilledError

LABELS = ("lost", "rate", "top")
TASK = Task(labels=(), max_length=12)
CUES = {"lost": "lost card", "rate": "rate cash", "top": "top up"}
QUICK = Distill(epochs=10, learning_rate=5e-3, batch_size=8, head_learning_rate_factor=1.0, precision="fp32")


def table(count: int, seed: int, name: str = "train") -> Table:
    rng = np.random.default_rng(seed)
    chosen = [LABELS[i % 3] for i in range(count)]
    texts = [" ".join([*rng.choice(["please", "my", "is", "the", "where"], 3), CUES[label]]) for label in chosen]
    return Table(tuple(texts), None, tuple(chosen), name)


def unlabeled(source: Table) -> Table:
    return Table(source.texts, source.pairs, None, "unlabeled")


TRAIN, VALIDATION = table(48, 0), table(18, 1, "validation")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threads(1):
        yield


@pytest.fixture
def teacher(tiny: Callable[..., Path], tmp_path: Path) -> Artifact:
    out = tmp_path / "teacher"
    out.mkdir()
    given = Context(data={"train": TRAIN, "validation": VALIDATION}, task=TASK)
    config = Finetune(epochs=10, learning_rate=5e-3, batch_size=8, head_learning_rate_factor=1.0, precision="fp32")
    outcome = finetune(Artifact.outside(tiny("bert"), None), config, out, given)
    assert outcome.metrics["validation_accuracy"] == 1.0
    return Artifact.outside(out, outcome.task)


def context(teacher: Artifact | None, **changes: object) -> Context:
    base: dict[str, object] = {
        "data": {"train": TRAIN, "validation": VALIDATION},
        "task": TASK,
        "teachers": (teacher,) if teacher else (),
    }
    return Context(**{**base, **changes})  # type: ignore[arg-type]


def run(folder: Path, out: Path, given: Context, **changes: object) -> Outcome:
    out.mkdir(exist_ok=True)
    config = Distill.model_validate(QUICK.model_dump() | changes)
    return distill(Artifact.outside(folder, None), config, out, given)


def test_a_student_learns_around_the_rounding_of_its_file(
    tiny: Callable[..., Path], tmp_path: Path, teacher: Artifact
) -> None:
    folder = tiny("bert", layers=1)
    run(folder, tmp_path / "plain", context(teacher))
    rounded = run(folder, tmp_path / "rounded", context(teacher), qat="int8", qat_embeddings="int4")
    assert rounded.metrics["validation_accuracy"] > 0.9
    assert (tmp_path / "rounded" / "model.safetensors").read_bytes() != (
        tmp_path / "plain" / "model.safetensors"
    ).read_bytes()


def test_by_word_altered_copies_have_words_of_the_unlabeled_texts_too(
    tiny: Callable[..., Path], tmp_path: Path, teacher: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Table] = []
    monkeypatch.setattr("edgekit.stages.distill.Lesson", lambda *parts: told.append(parts[0]) or Lesson(*parts))
    more = Table(("where is my heron",), name="unlabeled")
    given = context(teacher, data={"train": TRAIN, "validation": VALIDATION, "unlabeled": more})
    for draw in ("by_use", "by_word"):
        altering = {"altered_copies": 1, "altered_share": 0.5, "altered_draw": draw}
        run(tiny("bert", layers=1), tmp_path / draw, given, epochs=1, **altering)
    copies = [table.texts[len(TRAIN) + len(more) :] for table in told]
    assert copies == [altered(TRAIN, 1, 0, share=0.5, draw=draw, more=more).texts for draw in ("by_use", "by_word")]
    assert [any("heron" in text for text in texts) for texts in copies] == [False, True]


def test_a_training_that_only_harms_is_dropped(tmp_path: Path, teacher: Artifact) -> None:
    """A student that is near its teacher from the start, as after a cut that was repaired, and far too high a rate."""
    near = load_classifier(teacher.path, LABELS)
    with torch.no_grad():
        near.get_parameter("classifier.bias").add_(torch.arange(3))
    load.save_model(near, tmp_path / "near", tokenizer_from=teacher.path, edits=load.Edits())
    outcome = run(tmp_path / "near", tmp_path / "out", context(teacher), epochs=2, learning_rate=1.0)
    kept = load_classifier(tmp_path / "out", LABELS).state_dict()
    assert all(torch.equal(kept[name], value) for name, value in near.state_dict().items())
    assert outcome.facts.dropped and not outcome.facts.changed
    assert outcome.facts.summary.startswith("dropped: validation divergence was 0.")
    assert outcome.metrics["validation_accuracy"] == 1.0
    inside = run(
        tmp_path / "near", tmp_path / "inside", context(teacher), epochs=1, learning_rate=1.0, alpha_soft=0, hidden=1
    )
    assert inside.facts.changed  # its answers were not taught: they do not judge it
    helped = run(tmp_path / "near", tmp_path / "helped", context(teacher))
    assert helped.facts.changed and not helped.facts.dropped


@pytest.mark.parametrize("kind", ["text-classification", "sentence-similarity", "question-answering"])
def test_the_teachers_states_are_of_the_students_texts(kind: TaskKind, tiny: Callable[..., Path]) -> None:
    """An embedder has rows for all first texts, then for all second ones; an answerer windows, text by text."""
    firsts, seconds = ("my card", "where", "top up please"), ("cash " * 20, "is lost now", "the rate")
    labels = tuple('{"text": ["x"], "answer_start": [0]}' for _ in firsts) if kind == "question-answering" else None
    table = Table(firsts, seconds, labels)
    task = Task(kind=kind, max_length=16, pair=True, overlap=4)
    folder = tiny("bert")
    ours, theirs = (examples_of(folder, table, task) for _ in range(2))
    found, rows = _beside(ours, theirs, len(table)), range(len(ours.encoded))
    assert len(found) == len(rows) >= 3
    for row in rows:
        assert torch.equal(found.batch([row])["input_ids"], ours.encoded.batch([row])["input_ids"])


def test_several_teachers_answer_as_their_mean(
    tiny: Callable[..., Path], tmp_path: Path, teacher: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    given = Context(data={"train": TRAIN, "validation": VALIDATION}, task=TASK)
    tuned = finetune(Artifact.outside(tiny("bert"), None), Finetune(epochs=1, seed=5, precision="fp32"), other, given)
    both = (teacher, Artifact.outside(other, tuned.task))
    told: list[np.ndarray] = []
    monkeypatch.setattr("edgekit.stages.distill.Lesson", lambda *parts: told.append(parts[2]) or Lesson(*parts))
    loaded: list[Path] = []
    monkeypatch.setattr(
        load, "load_classifier", lambda path, *a, **k: loaded.append(path) or load_classifier(path, *a, **k)
    )
    for teachers in (both[:1], both[1:], both):
        loaded.clear()
        run(tiny("bert", layers=1), tmp_path / f"out{len(told)}", context(None, teachers=teachers), epochs=1)
    assert [loaded.count(one.path) for one in both] == [1, 1]  # whatever the number of tables
    np.testing.assert_allclose(told[2], (told[0] + told[1]) / 2, atol=1e-6)
    strange = Artifact.outside(other, TASK.model_copy(update={"labels": ("rate", "lost", "top")}))
    with pytest.raises(StageError, match="knows other labels"):
        run(tiny("bert", layers=1), tmp_path / "no", context(None, teachers=(teacher, strange)))


def test_a_student_learns_from_answers_alone(tiny: Callable[..., Path], tmp_path: Path, teacher: Artifact) -> None:
    data = {"train": unlabeled(TRAIN), "validation": VALIDATION}
    outcome = run(tiny("bert", layers=1), tmp_path / "out", context(teacher, data=data))
    assert outcome.metrics["validation_accuracy"] > 0.9
    assert outcome.task is not None
    assert outcome.task.labels == LABELS == head_labels(tmp_path / "out")
    assert "(teacher 1.000)" in outcome.facts.summary
    assert outcome.facts.numbers["teacher_accuracy"] == 1.0


@pytest.mark.parametrize("only", ["hidden", "relations"])
def test_the_inner_losses_alone_move_the_student(
    tiny: Callable[..., Path], tmp_path: Path, teacher: Artifact, only: str
) -> None:
    """The training loss falls though neither answers nor labels count; a projection bridges the widths."""
    said: list[str] = []

    class Listen(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    weights: dict[str, float] = {"alpha_soft": 0.0, only: 1.0}
    run(tiny("electra"), tmp_path / "out", context(teacher, progress=Listen()), epochs=5, **weights)
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in said if line.startswith("epoch")]
    assert losses[-1] < 0.8 * losses[0]


def test_the_epoch_nearest_to_the_teacher_is_kept(tiny: Callable[..., Path], tmp_path: Path, teacher: Artifact) -> None:
    class Said(Silent):
        lines: ClassVar[list[str]] = []

        def say(self, message: str) -> None:
            self.lines.append(message)

    given = context(teacher, progress=Said())
    outcome = run(tiny("bert", layers=1), tmp_path / "out", given, epochs=4, learning_rate=5e-2, schedule="constant")
    found = [float(line.rpartition("divergence ")[2]) for line in Said.lines if "validation divergence" in line]
    assert len(found) == 4
    assert outcome.facts.numbers["best_epoch"] == 1 + found.index(min(found))
    assert "validation_divergence" not in outcome.metrics


def test_a_student_of_another_width_learns_through_projections(
    tiny: Callable[..., Path], tmp_path: Path, teacher: Artifact
) -> None:
    from transformers import AutoModelForSequenceClassification, BertConfig

    folder = tiny("bert")
    config = BertConfig.from_pretrained(folder, hidden_size=24, num_attention_heads=3, num_hidden_layers=1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    outcome = run(folder, tmp_path / "out", context(teacher), hidden=1.0, relations=1.0, relation_layer=1)
    assert outcome.facts.numbers["misaligned_rows"] == 0
    assert outcome.metrics["validation_accuracy"] > 0.6  # chance is 0.33
    assert not any("extra" in name for name in _names(tmp_path / "out"))


def _names(folder: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return list(file.keys())


def test_rows_that_the_tokenizers_cut_differently_have_no_inner_loss(
    tiny: Callable[..., Path], tmp_path: Path, teacher: Artifact
) -> None:
    outcome = run(tiny("roberta"), tmp_path / "out", context(teacher), hidden=1.0, relations=1.0, epochs=20)
    apart = outcome.facts.numbers["misaligned_rows"]
    assert isinstance(apart, int)
    assert 0 < apart <= len(TRAIN)
    assert outcome.facts.skipped[0].name == f"{apart} rows"
    assert outcome.metrics["validation_accuracy"] > 0.9


def test_unlabeled_texts_join_with_the_labels_masked(
    tiny: Callable[..., Path], tmp_path: Path, teacher: Artifact
) -> None:
    more = unlabeled(table(30, 7))
    data = {"train": TRAIN, "validation": VALIDATION, "unlabeled": more}
    outcome = run(tiny("bert", layers=1), tmp_path / "out", context(teacher, data=data), alpha_hard=0.5)
    assert outcome.facts.numbers["rows"] == 78
    assert outcome.facts.numbers["unlabeled_rows"] == 30
    assert outcome.facts.numbers["steps"] == 10 * 10
    assert outcome.metrics["validation_accuracy"] > 0.9


def test_a_second_student_finds_the_teachers_answers(
    tiny: Callable[..., Path], tmp_path: Path, teacher: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny("bert", layers=1)
    run(folder, tmp_path / "a", context(teacher, scratch=tmp_path / "scratch" / "a"))
    assert len(list((tmp_path / "scratch").glob("teacher-*/logits.safetensors"))) == 2  # train and validation

    def again(*_: object, **__: object) -> None:
        raise AssertionError("the teacher was asked again")

    monkeypatch.setattr("edgekit.nn.teacher.logits_of", again)
    run(folder, tmp_path / "b", context(teacher, scratch=tmp_path / "scratch" / "b"))
    with pytest.raises(AssertionError, match="asked again"):
        other = {"train": table(12, 3), "validation": VALIDATION}
        run(folder, tmp_path / "c", context(teacher, scratch=tmp_path / "scratch" / "c", data=other))


def test_the_students_start_does_not_depend_on_the_teachers_cache(
    tiny: Callable[..., Path], tmp_path: Path, teacher: Artifact
) -> None:
    folder = tiny("electra", head=False)
    for name in ("a", "b"):
        given = context(teacher, scratch=tmp_path / "scratch" / name)
        run(folder, tmp_path / name, given, hidden=1.0, epochs=1)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert files[0] == files[1]


def test_a_killed_run_ends_with_the_same_file(tiny: Callable[..., Path], tmp_path: Path, teacher: Artifact) -> None:
    """With projections, whose weights and optimizer state must be in the checkpoint too."""
    folder, inner = tiny("electra", layers=1), {"hidden": 1.0, "relations": 1.0}
    run(folder, tmp_path / "whole", context(teacher), **inner)
    scratch = tmp_path / "scratch" / "key"
    with pytest.raises(KilledError):
        run(folder, tmp_path / "killed", context(teacher, scratch=scratch, progress=KillAfter(15)), **inner)
    torch.manual_seed(77)
    given = context(teacher, scratch=scratch, progress=KillAfter(49))  # 48 steps are left
    run(folder, tmp_path / "resumed", given, **inner)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "resumed")]
    assert files[0] == files[1]


def test_bad_input_is_told_plainly(tiny: Callable[..., Path], tmp_path: Path, teacher: Artifact) -> None:
    folder, out = tiny("bert"), tmp_path / "out"
    with pytest.raises(StageError, match="teacher") as caught:
        run(folder, out, context(None))
    assert "--teacher" in caught.value.hint
    with pytest.raises(StageError, match="no trained head"):
        run(folder, out, context(Artifact.outside(tiny("bert", head=False), None)))
    bare = {"train": unlabeled(TRAIN), "validation": VALIDATION}
    with pytest.raises(DataError, match="no labels"):
        run(folder, out, context(teacher, data=bare), alpha_hard=1.0)
    with pytest.raises(StageError, match="has 2 layers"):
        run(folder, out, context(teacher), relations=1.0, relation_layer=3)
    with pytest.raises(StageError, match="do not divide"):
        run(folder, out, context(teacher), relations=1.0, relation_heads=5)
    paired = Table(TRAIN.texts, TRAIN.texts, None, "unlabeled")
    with pytest.raises(DataError, match="pairs"):
        run(folder, out, context(teacher, data={"train": TRAIN, "validation": VALIDATION, "unlabeled": paired}))


def test_a_config_with_nothing_to_learn_is_refused() -> None:
    with pytest.raises(ValidationError, match="nothing to learn"):
        Distill(alpha_soft=0.0)
    assert all(field.description for field in Distill.model_fields.values())
