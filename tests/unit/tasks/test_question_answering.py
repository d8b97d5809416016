from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.artifact import Task
from edgekit.data.table import Table
from edgekit.errors import DataError
from edgekit.tasks.base import EncoderTask
from edgekit.tasks.encoders import ENCODER_TASKS, columns_of, examples_of
from edgekit.tasks.losses import UNLABELED
from edgekit.tasks.question_answering import Questions, mean_f1

TASK = Task(
    kind="question-answering",
    labels=("start", "end"),
    max_length=14,
    pair=True,
    segments=True,
    overlap=3,
    longest_answer=4,
)
CONTEXTS = (
    "the card arrived when the money is lost, where my cash is waiting still",
    "please top up my card",
    "the rate is not the transfer rate",
)
ANSWERS = ([("my cash", 47), ("cash", 50)], [("top up", 7)], [("nowhere", -1)])
TABLE = Table(("where is my cash", "what", "is it"), CONTEXTS, tuple(map(json.dumps, ANSWERS)), "q", "answers")


def questions(folder: Path, table: Table = TABLE, task: Task = TASK) -> Questions:
    found = examples_of(folder, table, task)
    assert isinstance(found, Questions)
    return found


def logits_for(found: Questions, spans: list[tuple[int, int]]) -> np.ndarray:
    """Logits (places, 2) of a model that is sure of these spans, first and last character, wherever it sees them."""
    logits = np.full((found.places, 2), -3.0, dtype=np.float32)
    place = 0
    for windows, span in zip(found.windows, spans, strict=True):
        for window in windows:
            for side, ends in enumerate((window.begins, window.lasts)):
                logits[place + window.columns[ends == span[side]], side] = 5.0
            place += len(window.ids)
    return logits


def output_for(found: Questions, units: list[int]) -> torch.Tensor:
    """A random output of a model on the rows of these questions, (rows, length, 2)."""
    rows = found.fed(units)
    width = max(found.encoded.lengths[row] for row in rows)
    return torch.randn(len(rows), width, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)


def flat(found: Questions, output: torch.Tensor) -> np.ndarray:
    """The output on all rows as a runtime gives it, (places, 2)."""
    lengths = found.encoded.lengths
    return np.concatenate([rows[:n] for rows, n in zip(output.detach().numpy(), lengths, strict=True)])


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_question_is_windows_and_its_answer_is_read_over_all_of_them(tiny: Callable[..., Path], family: str) -> None:
    found = questions(tiny(family), task=TASK.model_copy(update={"segments": family == "bert"}))
    assert [len(windows) > 1 for windows in found.windows][:2] == [True, family == "roberta"]
    assert found.fed([1, 0]) == [*found.fed([1]), *found.fed([0])]
    assert sum(found.lengths) == found.places == sum(found.encoded.lengths)
    assert found.targets[:, 0].tolist() == [47, 53]
    assert found.targets[:, 2].tolist() == [UNLABELED, UNLABELED]
    judged = found.judge(found.read(logits_for(found, [(47, 53), (7, 12), (0, 2)])))
    assert judged.answers.tolist() == ["my cash", "top up", "the"]
    assert judged.metrics == pytest.approx({"answer_f1": 2 / 3, "exact_match": 2 / 3})
    assert judged.evidence is not None
    assert judged.evidence.tolist() == [[1, 1], [1, 1], [0, 0]]
    assert found.mean_loss(found.read(logits_for(found, [(47, 53), (7, 12), (0, 2)]))) < 0.1
    assert judged.truth is not None
    assert judged.truth.tolist() == ["my cash", "top up", "nowhere"]


def test_the_loss_is_one_choice_over_all_windows(tiny: Callable[..., Path]) -> None:
    found = questions(tiny("bert"))
    output = output_for(found, [0, 1, 2])
    loss = found.loss(output, [0, 1, 2])
    answers = found.read(flat(found, output))
    assert loss.item() == pytest.approx(found.mean_loss(answers), rel=1e-5)
    assert found.loss(output, [0, 1, 2], summed=True).item() == pytest.approx(4 * loss.item(), rel=1e-5)
    loss.backward()
    assert output.grad is not None
    touched = (output.grad.abs().sum(-1) > 0).sum(-1).tolist()
    assert touched[-len(found.windows[2]) :] == [0] * len(found.windows[2])  # its answer does not stand there
    assert all(touched[: len(found.windows[0]) + 1])
    own = found.loss(output, [2], own=True) if len(found.fed([2])) == len(output) else None
    assert own is None or own.item() > 0
    assert found.loss(output_for(found, [2]), [2]).item() == 0.0
    assert found.loss(output_for(found, [2]), [2], own=True).item() > 0


def test_smoothing_spreads_over_the_tokens_that_are_there(tiny: Callable[..., Path]) -> None:
    found = questions(tiny("bert"))
    even = torch.zeros(len(found.fed([0, 1])), max(found.encoded.lengths), 2)
    hard = found.loss(even, [0, 1])
    tokens = [len(np.unique(np.concatenate([w.begins for w in found.windows[unit]]))) for unit in (0, 1)]
    assert hard.item() == pytest.approx(float(np.log(tokens).mean()), rel=1e-5)
    assert found.loss(even, [0, 1], smoothing=0.5).item() == pytest.approx(hard.item(), rel=1e-5)


def test_a_teacher_with_other_tokens_is_followed_where_both_have_one(
    tiny: Callable[..., Path], tmp_path: Path, make_wordpiece: Callable[[list[str]], object]
) -> None:
    found = questions(tiny("bert"))
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "tokenizer.json").write_text(json.dumps(make_wordpiece([])), encoding="utf-8")
    (tmp_path / "letters" / "config.json").write_text('{"model_type": "bert", "pad_token_id": 0}', encoding="utf-8")
    letters = questions(tmp_path / "letters")
    assert len(letters.encoded) > len(found.encoded)
    told = letters.read(logits_for(letters, [(47, 53), (7, 12), (0, 2)]))
    assert told.shape == found.read(logits_for(found, [(0, 2)] * 3)).shape
    output = output_for(found, [1, 0])
    loss = found.follow(output, [1, 0], told, 2.0)
    loss.backward()
    assert output.grad is not None
    assert bool(output.grad.isfinite().all())
    assert loss.item() > 0
    same = output_for(found, [0, 1, 2])
    assert found.follow(same, [0, 1, 2], found.read(flat(found, same)), 1.0).item() == pytest.approx(0, abs=1e-5)
    assert found.follow(same, [0, 1, 2], np.full_like(told, np.nan), 1.0).item() == 0.0


def test_contexts_are_needed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no contexts"):
        examples_of(tmp_path, Table(("what",)), TASK)


def test_the_statistic_is_the_mean_of_f1() -> None:
    evidence = np.array([[1.0, 1.0], [0.5, 0.0], [0.0, 0.0]])
    assert mean_f1(evidence, np.array([[1, 1, 1], [0, 3, 0], [2, 1, 0]])).tolist() == pytest.approx([0.5, 0.5, 2.5 / 3])


def test_what_the_task_is_to_everything_else() -> None:
    task: EncoderTask = ENCODER_TASKS["question-answering"]
    assert (task.main, task.cuts, task.labels(TABLE)) == ("answer_f1", True, ("start", "end"))
    columns = columns_of("question-answering")
    assert (columns.text, columns.pair, columns.label) == ("question", "context", "answers")
    written = TASK.model_dump(mode="json")
    assert (written["overlap"], written["longest_answer"]) == (3, 4)
    assert "overlap" not in Task(max_length=8).model_dump()  # keys of other tasks' steps stay what they were
    assert Task.model_validate(written) == TASK
