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
from edgekit.resampling import bootstrap_chance, bootstrap_drop
from edgekit.tasks.encoders import examples_of
from edgekit.tasks.entities import entities, entity_counts, entity_f1, entity_metrics
from edgekit.tasks.token_classification import NO_TOKEN, Sentences, label_names

LABELS = ("O", "B-card", "I-card")
TASK = Task(kind="token-classification", labels=LABELS, max_length=8)
TEXTS = ("my lost card arrived", "\u200b where is transfering", "top up")
TABLE = Table(TEXTS, None, ("O B-card I-card O", "O O O B-card", "O O"), "words", "words")


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ("B-a I-a O B-b", [("a", 0, 1), ("b", 3, 3)]),
        ("B-a B-a I-b I-b", [("a", 0, 0), ("a", 1, 1), ("b", 2, 3)]),  # I- of another type begins one
        ("I-a I-a O I-a", [("a", 0, 1), ("a", 3, 3)]),  # as seqeval reads it outside of its strict mode
        ("O O", []),
    ],
)
def test_entities(labels: str, found: list[tuple[str, int, int]]) -> None:
    assert entities(labels.split()) == found


def test_f1_counts_entities_with_type_and_both_ends() -> None:
    told = [("B-a I-a O", "B-a I-a O"), ("B-a I-a O", "B-a O O"), ("O O B-b", "O O B-a"), ("O B-b", "O O")]
    counts = np.array([entity_counts(truth.split(), found.split()) for truth, found in told], dtype=float)
    found = entity_metrics(counts)
    assert found["entity_precision"] == pytest.approx(1 / 3)
    assert found["entity_recall"] == pytest.approx(1 / 4)
    assert found["entity_f1"] == pytest.approx(2 / 7)
    assert entity_f1(counts, np.array([[1, 1, 1, 1], [2, 0, 0, 0]])).tolist() == pytest.approx([2 / 7, 1.0])


def sentences(folder: Path, table: Table = TABLE, task: Task = TASK) -> Sentences:
    found = examples_of(folder, table, task)
    assert isinstance(found, Sentences)
    return found


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_word_is_read_at_its_first_token(tiny: Callable[..., Path], family: str) -> None:
    from tokenizers import Tokenizer

    folder = tiny(family)
    found = sentences(folder, task=TASK.model_copy(update={"max_length": 40}))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text, first, ids in zip(TEXTS, found.firsts, found.encoded.ids, strict=True):
        for word, at in zip(text.split(" "), first, strict=True):
            piece = tokenizer.id_to_token(ids[at]).lstrip("Ġ") if at != NO_TOKEN else ""
            assert word.startswith(piece) if family == "bert" or piece.isascii() else at != NO_TOKEN
            assert bool(piece) or (family, word) == ("bert", "\u200b")  # which BERT's tokenizer drops


def test_words_without_a_token_are_answered_o_and_count(tiny: Callable[..., Path]) -> None:
    found = sentences(tiny("bert"))
    cut = found.firsts[1]
    assert (cut[0], cut[-1] != NO_TOKEN) == (NO_TOKEN, True)
    perfect = np.full((found.places, 3), -5.0, dtype=np.float32)
    starts = np.cumsum([0, *found.lengths])
    for start, first, labels in zip(starts[:-1], found.firsts, found.words, strict=True):
        for at, label in zip(first, labels, strict=True):
            if at != NO_TOKEN:
                perfect[start + at, label] = 5.0
    judged = found.judge(found.read(perfect))
    assert judged.metrics["entity_f1"] == 1.0
    assert judged.answers.tolist() == np.concatenate(found.words).tolist()
    assert found.mean_loss(found.read(perfect)) < 1e-3
    short = sentences(tiny("bert"), task=TASK.model_copy(update={"max_length": 4}))  # [CLS] two tokens [SEP]
    judged = short.judge(short.read(np.tile(np.float32([0, 1, 0]), (short.places, 1))))
    assert judged.answers.tolist() == [1, 1, 0, 0, 0, 1, *judged.answers[6:]]
    assert judged.metrics["entity_recall"] < 1


def test_losses_count_words_not_tokens(tiny: Callable[..., Path]) -> None:
    found = sentences(tiny("bert"))
    output = torch.randn(2, max(found.lengths[:2]), 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found.loss(output, [0, 1]).backward()
    assert output.grad is not None
    touched = output.grad.abs().sum(-1) > 0
    for row in (0, 1):
        first = found.firsts[row]
        assert torch.nonzero(touched[row]).flatten().tolist() == first[first != NO_TOKEN].tolist()
    told = np.zeros((sum(map(len, found.words)), 3), dtype=np.float32)
    told[0] = np.nan  # the teacher was not asked about the first word
    output.grad = None
    found.follow(output, [0, 1], told, 1.0).backward()
    assert float(output.grad[0, found.firsts[0][0]].abs().sum()) == 0
    assert float(output.grad[0, found.firsts[0][1]].abs().sum()) > 0
    unlabeled = sentences(tiny("bert"), Table(TEXTS, None, ("", "O O O O", ""), "words", "words"))
    assert unlabeled.loss(output, [0]).item() == 0.0


def test_a_model_trained_elsewhere_may_answer_in_bioes(tiny: Callable[..., Path]) -> None:
    task = TASK.model_copy(update={"labels": (*LABELS, "E-card", "S-card", "E-mail"), "max_length": 40})
    table = Table(("lost card", "card top up"), None, ("B-card I-card", "B-card O O"), "words", "words")
    found = sentences(tiny("bert"), table, task)
    answers = np.eye(6, dtype=np.float32)[[1, 3, 4, 0, 5]]  # B- E-, S- O E-mail, which is of no other label
    judged = found.judge(answers)
    assert judged.answers.tolist() == [1, 2, 1, 0, 5]
    assert judged.metrics["entity_f1"] == 1.0


def test_labels_are_iob2_and_one_a_word() -> None:
    assert label_names(Table(("a b",), None, ("I-x O",), "t", "words")) == ("O", "B-x", "I-x")
    with pytest.raises(DataError, match="not IOB2: 'S-x'"):
        label_names(Table(("a b",), None, ("S-x O",), "t", "words"))
    with pytest.raises(DataError, match="numbers without names: '0', '3'") as numbers:
        label_names(Table(("a b",), None, ("3 0",), "t", "words"))
    assert "names" in numbers.value.hint
    with pytest.raises(DataError, match="no word is labelled"):
        label_names(Table(("a b",), None, ("O O",), "t", "words"))
    with pytest.raises(DataError, match="words without a label") as caught:
        examples_of(Path(), Table(("a b", "a b"), None, ("O O", "O"), "t", "words"), TASK)
    assert str(caught.value.problems[0].where) == "row 2"


def test_a_drop_is_paired_by_sentences() -> None:
    rng = np.random.default_rng(0)
    there = rng.integers(0, 3, 400).astype(float)
    parent = np.stack([there * (rng.random(400) < 0.8), there, there], axis=1)
    child = parent.copy()
    child[:40, 0] = 0
    same, worse = bootstrap_drop(entity_f1, parent, parent), bootstrap_drop(entity_f1, parent, child)
    assert (same.value, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert 0 < worse.low < worse.value < worse.high < 0.2
    assert worse.p_value == 0.0
    assert not bootstrap_chance(entity_f1, parent).at_chance
    assert bootstrap_chance(entity_f1, parent * [0, 1, 1]).at_chance
    with pytest.raises(ValueError, match="cannot be paired"):
        bootstrap_drop(entity_f1, parent, child[1:])


def test_chinese_words_are_cut_into_characters(tmp_path: Path, make_wordpiece: Callable[[list[str]], object]) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(make_wordpiece(["同", "样", "施", "力"])), encoding="utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "bert", "pad_token_id": 0}', encoding="utf-8")
    found = sentences(tmp_path, Table(("同样 ， 施力",), None, ("B-card O B-card",), "t", "words"))
    assert found.firsts[0].tolist() == [1, 3, 4]
