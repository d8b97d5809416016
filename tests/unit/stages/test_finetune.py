from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from edgekit.artifact import Artifact, Task
from edgekit.data.table import Table
from edgekit.errors import DataError, StageError
from edgekit.nn.device import threads
from edgekit.nn.head import head_labels, prepare_head
from edgekit.nn.load import load_classifier
from edgekit.stages.base import Context, Outcome
from edgekit.stages.finetune import Finetune, finetune
from tests.unit.killing import KillAfter, KilledError

Tiny = Callable[..., Path]
TASK = Task(labels=(), max_length=12)
CUES = {"lost": "lost card", "rate": "rate cash", "top": "top up"}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threads(1):
        yield


def table(
    count: int, *, labels: tuple[str, ...] = ("lost", "rate", "top"), seed: int = 0, name: str = "train"
) -> Table:
    rng = np.random.default_rng(seed)
    filler = ["please", "my", "is", "the", "where", "when", "not"]
    chosen = [labels[i % len(labels)] for i in range(count)]
    texts = [" ".join([*rng.choice(filler, 3), CUES.get(label, label)]) for label in chosen]
    return Table(tuple(texts), None, tuple(chosen), name)


def context(**changes: object) -> Context:
    data = {"train": table(48), "validation": table(18, seed=1, name="validation")}
    base: dict[str, object] = {"data": data, "task": TASK}
    return Context(**{**base, **changes})  # type: ignore[arg-type]


QUICK = Finetune(epochs=10, learning_rate=5e-3, batch_size=8, head_learning_rate_factor=1.0, precision="fp32")


def run(folder: Path, out: Path, config: Finetune = QUICK, given: Context | None = None) -> Outcome:
    out.mkdir(exist_ok=True)
    return finetune(Artifact.outside(folder, None), config, out, given or context())


def test_it_learns_and_the_folder_stands_alone(any_family: Path, tmp_path: Path) -> None:
    outcome = run(any_family, tmp_path / "out")
    assert outcome.format == "hf"
    assert outcome.task == Task(labels=("lost", "rate", "top"), max_length=12)
    assert outcome.metrics["validation_accuracy"] > 0.6  # chance is 0.33
    assert outcome.facts.summary.startswith("best epoch")
    assert outcome.facts.numbers["steps"] == 60
    assert outcome.facts.numbers["labels"] == 3
    model = load_classifier(tmp_path / "out")
    assert list(model.config.id2label.values()) == ["lost", "rate", "top"]
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (any_family / "tokenizer.json").read_bytes()


def test_the_same_seed_gives_the_same_file(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny("bert")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(folder, tmp_path / name, QUICK.model_copy(update={"seed": seed, "epochs": 1}))
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert files[0] == files[1] != files[2]


def test_a_head_with_the_same_labels_is_kept_in_its_order(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny("bert")
    model = load_classifier(folder)
    model.config.id2label = {0: "top", 1: "lost", 2: "rate"}
    model.config.label2id = {"top": 0, "lost": 1, "rate": 2}
    model.save_pretrained(folder)
    before = load_file(folder / "model.safetensors")["classifier.weight"]
    outcome = run(folder, tmp_path / "out", QUICK.model_copy(update={"epochs": 1, "learning_rate": 1e-9}))
    assert outcome.task is not None
    assert outcome.task.labels == ("top", "lost", "rate") == head_labels(tmp_path / "out")
    assert outcome.facts.numbers["new_head"] is False
    torch.testing.assert_close(load_file(tmp_path / "out" / "model.safetensors")["classifier.weight"], before)


def test_a_head_for_as_many_other_labels_is_drawn_anew(tiny: Tiny) -> None:
    folder = tiny("bert")
    labels = ("lost", "rate", "top")
    model = load_classifier(folder, labels)
    before = model.classifier.weight.clone()
    assert prepare_head(model, folder, labels) == {"classifier.weight", "classifier.bias"}
    assert not torch.equal(model.classifier.weight, before)
    assert not model.classifier.bias.any()
    kept = load_classifier(folder)
    assert prepare_head(kept, folder, head_labels(folder)) == set()
    torch.testing.assert_close(kept.classifier.weight, before)


def test_a_bare_encoder_gets_a_head(tiny: Tiny, tmp_path: Path) -> None:
    outcome = run(tiny("bert", head=False), tmp_path / "out")
    assert outcome.facts.numbers["new_head"] is True
    assert outcome.metrics["validation_accuracy"] > 0.6  # chance is 0.33


def test_a_killed_run_ends_with_the_same_file(tiny: Tiny, tmp_path: Path) -> None:
    """Killed in the third epoch: the checkpoint of the second one is taken up."""
    folder = tiny("bert", head=False)
    run(folder, tmp_path / "whole")
    scratch = tmp_path / "scratch"
    with pytest.raises(KilledError):
        run(folder, tmp_path / "killed", given=context(scratch=scratch, progress=KillAfter(15)))
    torch.manual_seed(1234)
    run(folder, tmp_path / "resumed", given=context(scratch=scratch, progress=KillAfter(49)))  # 48 steps are left
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "resumed")]
    assert files[0] == files[1]


def test_a_checkpoint_of_other_data_is_not_taken_up(tiny: Tiny, tmp_path: Path) -> None:
    folder, scratch = tiny("bert"), tmp_path / "scratch"
    run(folder, tmp_path / "first", given=context(scratch=scratch))
    other = {"train": table(40, seed=9), "validation": table(18, seed=1)}
    with pytest.raises(KilledError):
        run(folder, tmp_path / "second", given=context(scratch=scratch, data=other, progress=KillAfter(1)))


def test_what_is_worth_a_warning(tiny: Tiny, tmp_path: Path) -> None:
    train = table(66, labels=("lost",) * 21 + ("rate",))
    long = Table((*train.texts, "card " * 30), None, (*train.labels, "rate"), "train")  # type: ignore[misc]
    validation = table(6, labels=("lost", "lost", "rate"), name="validation")
    never = QUICK.model_copy(update={"epochs": 3, "learning_rate": 1e-9, "patience": 1})
    given = context(data={"train": long, "validation": validation})
    outcome = run(tiny("bert", labels=2), tmp_path / "out", never, given)
    told = "\n".join(outcome.facts.warnings)
    assert "1 of 67 rows (1.5%) were cut at 12 tokens" in told
    assert "63 rows of 'lost', 4 of 'rate'" in told
    assert "chance level" in told
    weighted = run(tiny("bert", labels=2), tmp_path / "w", QUICK.model_copy(update={"class_weights": True}), given)
    assert "uneven" not in "\n".join(weighted.facts.warnings)


def test_rows_of_just_the_greatest_length_are_not_called_cut(tiny: Tiny, tmp_path: Path) -> None:
    exact = Table(("card " * 10, "cash " * 10), None, ("lost", "rate"), "train")  # 10 words, [CLS], [SEP]
    given = context(data={"train": exact, "validation": exact})
    outcome = run(tiny("bert"), tmp_path / "out", QUICK.model_copy(update={"epochs": 1}), given)
    assert not any("cut" in warning for warning in outcome.facts.warnings)


def test_bad_input_is_told_plainly(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny("bert")
    with pytest.raises(StageError, match="validation"):
        run(folder, tmp_path / "out", given=context(data={"train": table(9)}))
    with pytest.raises(DataError, match="'odd'"):
        data = {"train": table(9), "validation": table(9, labels=("odd", "lost"))}
        run(folder, tmp_path / "out", given=context(data=data))
    with pytest.raises(DataError, match="at least 2 labels"):
        run(folder, tmp_path / "out", given=context(data={"train": table(9, labels=("lost",)), "validation": table(9)}))
    with pytest.raises(StageError, match="task"):
        run(folder, tmp_path / "out", given=context(task=None))
    with pytest.raises(StageError, match=r"is (nan|inf) at step"):
        run(folder, tmp_path / "out", QUICK.model_copy(update={"learning_rate": 1e30, "clip": 0.0, "warmup": 0.0}))


def test_settings_out_of_bounds_are_refused() -> None:
    for wrong in ({"epochs": 0}, {"learning_rate": -1e-4}, {"warmup": 1.5}, {"label_smoothing": 1.0}, {"epoch": 3}):
        with pytest.raises(ValidationError):
            Finetune.model_validate(wrong)
    assert all(field.description for field in Finetune.model_fields.values())
