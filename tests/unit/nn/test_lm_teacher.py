from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import StageError
from edgekit.nn.lm_asking import Asking, generated, keep_answers
from edgekit.nn.lm_losses import top_answers, top_loss
from edgekit.nn.lm_rows import packed
from edgekit.nn.lm_teacher import Live, pair_layers
from edgekit.nn.lm_vocabulary import Shared, shared_vocabulary
from edgekit.nn.losses import soft_loss
from edgekit.progress import Silent
from tests.unit.nn.test_lm_rows import random_documents
from tests.unit.nn.tiny_decoders import tiny_decoder

EVERY = np.arange(50)
SAME = Shared(EVERY, EVERY, True)
ROWS = packed(random_documents([9, 7, 5, 4, 3, 12]), 16)


def logits(seed: int) -> torch.Tensor:
    return 3 * torch.randn(7, 50, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 49), st.sampled_from([1.0, 2.0]))
def test_the_top_never_says_more_than_all(count: int, temperature: float) -> None:
    teacher, student = logits(0), logits(1)
    whole = soft_loss(student, teacher, temperature)
    part = top_loss(student, *top_answers(teacher, count, temperature), temperature)
    assert 0 < part <= whole + 1e-5
    assert abs(top_loss(teacher, *top_answers(teacher, count, temperature), temperature)) < 1e-5


def test_the_top_of_all_tokens_is_the_whole_divergence() -> None:
    teacher, student = logits(0), logits(1)
    top = top_answers(teacher, 50, 2.0)
    torch.testing.assert_close(top_loss(student, *top, 2.0), soft_loss(student, teacher, 2.0), rtol=1e-4, atol=1e-4)


def asking(folder: Path | None, load: Callable[[], Any]) -> Asking:
    return Asking(load, "teacher", folder, 2, "cpu", Silent())


def test_answers_that_are_kept_are_those_of_the_teacher_beside_the_student(tmp_path: Path) -> None:
    teacher, student = tiny_decoder("llama", dtype=torch.float32), tiny_decoder("llama", dtype=torch.float32, seed=1)
    live = Live(teacher, ROWS, SAME)
    kept = keep_answers(asking(tmp_path, lambda: teacher), ROWS, SAME, count=50, temperature=2.0)
    for rows in ROWS.batches(2):
        batch = ROWS.batch(rows)
        batch.pop("labels")
        said = student(**batch, use_cache=False).logits
        now, _ = live.losses(rows, said, 2.0, {})
        before, _ = kept.losses(rows, said, 2.0, {})
        torch.testing.assert_close(before, now, rtol=1e-4, atol=1e-5)


def test_the_teacher_is_asked_once(tmp_path: Path) -> None:
    teacher = tiny_decoder("llama", dtype=torch.float32)
    first = keep_answers(asking(tmp_path, lambda: teacher), ROWS, SAME, count=5, temperature=1.0)

    def never() -> Any:
        raise AssertionError("asked again")

    again = keep_answers(asking(tmp_path, never), ROWS, SAME, count=5, temperature=1.0)
    memory = keep_answers(asking(None, lambda: teacher), ROWS, SAME, count=5, temperature=1.0)
    for other in (again, memory):
        np.testing.assert_array_equal(first.answers.ids, other.answers.ids)
        np.testing.assert_array_equal(first.answers.log_p, other.answers.log_p)
    with pytest.raises(AssertionError, match="asked again"):
        keep_answers(asking(tmp_path, never), ROWS, SAME, count=5, temperature=2.0)


def test_a_teacher_writes_on_from_the_rows_beginnings(tmp_path: Path) -> None:
    teacher = tiny_decoder("llama", dtype=torch.float32)
    made = generated(asking(tmp_path, lambda: teacher), ROWS, prompt=4, length=12, seed=3)
    assert [ids[:4].tolist() for ids in made.ids] == [ids[:4].tolist() for ids in ROWS.ids if len(ids) > 4]
    assert all(1 not in ids[4:-1] for ids in made.ids)  # 1 ends a text
    assert all(len(ids) == 12 or ids[-1] == 1 for ids in made.ids)
    kept = generated(asking(tmp_path, lambda: None), ROWS, prompt=4, length=12, seed=3)
    assert kept.digest == made.digest
    assert generated(asking(None, lambda: teacher), ROWS, prompt=4, length=12, seed=4).digest != made.digest


def test_hidden_states_are_compared_through_a_map_where_widths_differ() -> None:
    teacher = tiny_decoder("llama", dtype=torch.float32, layers=4, hidden=32)
    student = tiny_decoder("llama", dtype=torch.float32, layers=2, seed=1)
    layers = pair_layers(student, teacher, "uniform")
    assert [layers.teacher[name] is teacher.model.layers[i] for name, i in (("hidden0", 1), ("hidden1", 3))] == [
        True
    ] * 2
    assert layers.projections["hidden0"].weight.shape == (32, 24)
    assert not pair_layers(teacher, teacher, "last").projections


def write_words(folder: Path, words: list[str]) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder.mkdir()
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = tiny_decoder("llama", vocabulary=len(words)).config
    (folder / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    return folder


def test_a_pruned_vocabulary_is_a_part_of_the_teachers(tmp_path: Path) -> None:
    teacher = write_words(tmp_path / "teacher", ["a", "b", "c", "d"])
    student = write_words(tmp_path / "student", ["a", "c", "d"])
    shared = shared_vocabulary(student, teacher)
    assert not shared.same
    assert shared.translate(torch.tensor([[0, 1, 2]])).tolist() == [[0, 2, 3]]
    assert shared.of_teacher(torch.tensor([10.0, 11.0, 12.0, 13.0])).tolist() == [10.0, 12.0, 13.0]
    assert shared.of_student(torch.tensor([1.0, 2.0, 3.0])).tolist() == [1.0, 2.0, 3.0]
    assert shared_vocabulary(teacher, teacher).same


def test_a_student_with_tokens_of_its_own_is_refused(tmp_path: Path) -> None:
    teacher = write_words(tmp_path / "teacher", ["a", "b"])
    student = write_words(tmp_path / "student", ["a", "x", "y"])
    with pytest.raises(StageError, match="2 of the student's 3 tokens are not the teacher's, the first is 'x'"):
        shared_vocabulary(student, teacher)
