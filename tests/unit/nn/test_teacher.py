from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.artifact import Artifact, Task
from edgekit.data.table import Table
from edgekit.nn.capture import capture
from edgekit.nn.device import threads
from edgekit.nn.evaluate import logits_of, validation_figures
from edgekit.nn.load import load_classifier
from edgekit.nn.teacher import Insides, make_projections, teacher_logits
from edgekit.progress import Silent
from edgekit.tasks.text_classification import Texts, encode

TASK = Task(labels=("LABEL_0", "LABEL_1", "LABEL_2"), max_length=12)
TABLE = Table(("lost my card", "where is the cash please", "top up", "rate"), None, None, "texts")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threads(1):
        yield


def test_logits_are_kept_by_teacher_data_and_length(tiny: Callable[..., Path], tmp_path: Path) -> None:
    folder, cache, loads = tiny("bert"), tmp_path / "cache", []
    artifact = Artifact.outside(folder, TASK)

    def load() -> object:
        loads.append(1)
        return load_classifier(folder)

    ask = partial(teacher_logits, cache=cache, device="cpu", progress=Silent())
    first = ask(artifact, load, TABLE, TASK)
    np.testing.assert_array_equal(ask(artifact, load, TABLE, TASK), first)
    assert len(loads) == 1
    ask(artifact, load, TABLE.head(2), TASK)
    ask(artifact, load, TABLE, TASK.model_copy(update={"max_length": 5}))
    other = tiny("bert", layers=1)
    ask(Artifact.outside(other, TASK), lambda: load_classifier(other), TABLE, TASK)
    assert len(loads) == 3
    assert len(list(cache.glob("teacher-*"))) == 4
    for path in cache.glob("teacher-*/logits.safetensors"):
        path.write_bytes(path.read_bytes()[:20])  # damaged: computed again
    np.testing.assert_array_equal(ask(artifact, load, TABLE, TASK), first)
    assert len(loads) == 4


def test_logits_come_in_the_datas_order(tiny: Callable[..., Path]) -> None:
    folder = tiny("bert")
    model, encoded = load_classifier(folder), encode(folder, TABLE, TASK)
    found = logits_of(model, encoded)
    for row in range(len(TABLE)):
        with torch.no_grad():
            alone = model(**encoded.batch([row])).logits[0].numpy()
        np.testing.assert_allclose(found[row], alone, atol=1e-5)


def test_validation_loss_is_the_cross_entropy_also_of_large_logits() -> None:
    logits = np.array([[1000.0, 0.0], [0.0, 2.0]], dtype=np.float32)
    exam = Texts(Path(), Table(("a", "b"), None, ("x", "x")), Task(labels=("x", "y"), max_length=8))
    figures = validation_figures(logits, exam)
    assert figures["accuracy"] == 0.5
    assert figures["loss"] == pytest.approx((0.0 + np.log(1 + np.exp(2.0))) / 2)


def insides(student: Path, teacher: Path, pairs: tuple[tuple[int, int], ...]) -> Insides:
    small, large = load_classifier(student), load_classifier(teacher)
    rows = encode(student, TABLE, TASK), encode(teacher, TABLE, TASK)
    return Insides(small, large, *rows, pairs, (0, 1), 0, make_projections(small, large, pairs))


def test_a_model_agrees_with_itself_and_not_with_another(any_family: Path, tiny: Callable[..., Path]) -> None:
    """In every family: the layers and the queries, keys and values are found, and padding does not count."""
    pairs = ((0, 0), (1, 1))
    same, rows = insides(any_family, any_family, pairs), [0, 1, 2, 3]
    same = Insides(**{**vars(same), "relation_layers": (1, 1)})
    with capture(same.watched()) as seen, torch.no_grad():
        same.student(**same.student_rows.batch(rows))
        hidden, relations = same.losses(rows, seen)
        assert len(seen) == 5
    assert hidden.item() == pytest.approx(0.0, abs=1e-9)
    assert relations.item() == pytest.approx(0.0, abs=1e-6)
    crossed = insides(any_family, any_family, ((0, 1),))
    with capture(crossed.watched()) as seen, torch.no_grad():
        crossed.student(**crossed.student_rows.batch(rows))
        hidden, relations = crossed.losses(rows, seen)
    assert hidden.item() > 0.01
    assert relations.item() > 1e-5


def test_remembered_states_teach_the_same(any_family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = insides(any_family, any_family, ((0, 1), (1, 0)))
    kept = fresh.remember(Silent())
    assert len(kept.remembered) == len(TABLE)

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the teacher is asked again")

    with capture(fresh.watched()) as seen, torch.no_grad():
        for rows in ([2, 0], [1, 3]):
            fresh.student(**fresh.student_rows.batch(rows))
            wanted = fresh.losses(rows, dict(seen))
            monkeypatch.setattr(kept.teacher, "forward", forbidden)
            found = kept.losses(rows, dict(seen))
            monkeypatch.undo()
            assert found[0].item() == pytest.approx(wanted[0].item(), rel=1e-2)
            assert found[1].item() == pytest.approx(wanted[1].item(), rel=1e-2)


def test_states_that_do_not_fit_are_not_kept(tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.nn.teacher.ROOM", 1 << 62)
    folder = tiny("bert")
    assert insides(folder, folder, ((0, 1),)).remember(Silent()).remembered == ()


def test_hooks_are_gone_afterwards(tiny: Callable[..., Path]) -> None:
    model = load_classifier(tiny("bert"))
    with capture({"head": model.classifier}) as seen:
        model(torch.ones(1, 3, dtype=torch.long))
    assert seen["head"].shape == (1, 3)
    seen.clear()
    model(torch.ones(1, 3, dtype=torch.long))
    assert not seen
