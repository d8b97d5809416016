from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.artifact import Artifact, Task
from edgekit.data.table import Table
from edgekit.errors import DataError, StageError
from edgekit.evaluate import predict, predict_torch
from edgekit.nn.evaluate import logits_of, truncated_rows
from edgekit.nn.load import load_classifier
from edgekit.resampling import bootstrap_drop
from edgekit.sentence_modules import write_modules
from edgekit.stages.base import Context
from edgekit.stages.export import Export, draft, export
from edgekit.tasks.base import agreement
from edgekit.tasks.correlation import spearman_of_samples
from edgekit.tasks.encoders import examples_of
from edgekit.tasks.sentence_similarity import SENTENCE_SIMILARITY, Embedded, cosent_loss

TASK = Task(kind="sentence-similarity", max_length=16)
TABLE = Table(
    ("my lost card arrived", "where is the transfer", "top up"),
    ("the card is lost", "please when is my money not still arrived", "cash rate 今天"),
    ("4.5", "2.0", "0.0"),
    "pairs",
    "score",
)


def embedded(folder: Path, table: Table = TABLE) -> Embedded:
    found = examples_of(folder, table, TASK)
    assert isinstance(found, Embedded)
    return found


def by_hand(folder: Path, text: str, pooling: str = "mean") -> np.ndarray:
    """Transformers' own encoder, one text without padding, pooled with numpy."""
    from tokenizers import Tokenizer
    from transformers import AutoModel

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(TASK.max_length)
    ids = torch.tensor([tokenizer.encode(text).ids])
    with torch.inference_mode():
        model = AutoModel.from_pretrained(folder).eval()
        states = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0].numpy()
    vector = states.mean(0) if pooling == "mean" else states[0]
    return np.asarray(vector / np.linalg.norm(vector))


def test_rows_are_all_first_texts_then_all_second_ones(tiny: Callable[..., Path]) -> None:
    found = embedded(tiny())
    assert (found.places, len(found.encoded)) == (6, 6)
    assert found.fed([2, 0]) == [2, 0, 5, 3]
    assert found.lengths[0] == len(found.encoded.ids[0]) + len(found.encoded.ids[3])
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    assert found.read(rows).tolist() == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]
    assert embedded(found.folder, TABLE.one_by_one()).read(rows).tolist() == rows.tolist()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_an_embedding_is_the_pooled_state_of_length_1(tiny: Callable[..., Path], family: str, pooling: str) -> None:
    folder = tiny(family, head=False)
    write_modules(folder, "mean" if pooling == "mean" else "cls", 32)
    found = logits_of(load_classifier(folder, kind="sentence-similarity"), embedded(folder).encoded)  # padded
    for text, vector in zip(TABLE.all_texts(), found, strict=True):
        assert vector == pytest.approx(by_hand(folder, text, pooling), abs=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_exported_file_embeds_as_torch_does(tiny: Callable[..., Path], tmp_path: Path, pooling: str) -> None:
    folder = tiny(head=False)
    write_modules(folder, "mean" if pooling == "mean" else "cls", 32)
    source, out = Artifact.outside(folder, TASK), tmp_path / "out"
    out.mkdir()
    made = export(source, Export(), out, Context({"validation": TABLE}, threads=1))
    assert made.metrics["agreement"] == pytest.approx(1.0)
    exact = predict_torch(source, TABLE, threads=1).logits
    for batch in (1, 6):  # alone, and padded beside others
        assert predict(draft(out, "onnx", TASK), TABLE, threads=1, batch=batch).logits == pytest.approx(exact, abs=1e-5)
    assert exact[3] == pytest.approx(by_hand(folder, TABLE.all_texts()[3], pooling), abs=1e-5)


def test_spearman_of_the_cosines_is_judged(tiny: Callable[..., Path]) -> None:
    found = embedded(tiny())
    answers = np.array([[1, 0, 0.6, 0.8], [1, 0, 1, 0], [1, 0, 0, 1]], dtype=np.float32)  # cosines 0.6, 1, 0
    judged = found.judge(answers)
    assert judged.answers.tolist() == pytest.approx([0.6, 1.0, 0.0])
    assert judged.metrics["spearman"] == pytest.approx(0.5)
    assert judged.metrics["pearson"] == pytest.approx(np.corrcoef([0.6, 1, 0], [4.5, 2, 0])[0, 1])
    assert found.judge(answers * 3).metrics == pytest.approx(judged.metrics)
    assert judged.evidence is not None
    assert bootstrap_drop(spearman_of_samples, judged.evidence, judged.evidence).value == 0
    assert agreement(judged.answers, judged.answers[::-1]) == pytest.approx(0.5)


def test_what_cannot_be_judged_is_said(tiny: Callable[..., Path]) -> None:
    folder = tiny()
    with pytest.raises(DataError, match="similarity is of two texts"):
        embedded(folder, TABLE.one_by_one()).judge(np.eye(6, dtype=np.float32))
    gaps = Table(TABLE.texts, TABLE.pairs, ("1.0", "", "2.0"), "gaps", "score")
    with pytest.raises(DataError, match="pairs without a score"):
        embedded(folder, gaps).judge(np.ones((3, 4), dtype=np.float32))


def test_cosent_counts_what_is_out_of_order() -> None:
    cosines, scores = torch.tensor([0.9, 0.2, 0.5, 0.0]), torch.tensor([5.0, 3.0, 1.0, math.nan])
    apart = [0.2 - 0.9, 0.5 - 0.9, 0.5 - 0.2]  # the better pair is named last
    assert float(cosent_loss(cosines, scores)) == pytest.approx(math.log(1 + sum(math.exp(20 * d) for d in apart)))
    assert float(cosent_loss(cosines[:1], scores[:1])) == 0.0


def test_losses_have_gradients_with_and_without_scores(tiny: Callable[..., Path]) -> None:
    found = embedded(tiny())
    output = torch.nn.functional.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    output.requires_grad_()
    for own in (False, True):
        (gradient,) = torch.autograd.grad(found.loss(output, [0, 2], own=own, summed=True), output)
        assert bool(gradient.abs().sum() > 0)


@pytest.mark.parametrize("width", [8, 6])
def test_a_student_that_answers_as_its_teacher_has_nothing_to_follow(tiny: Callable[..., Path], width: int) -> None:
    found = embedded(tiny())
    told = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    rows = torch.from_numpy(np.concatenate(np.split(told[[2, 0]], 2, axis=1)))
    if width == 6:  # the same angles in another space: two of the dimensions were empty
        told[:, [6, 7, 14, 15]] = 0
        rows = torch.from_numpy(np.concatenate(np.split(told[[2, 0]], 2, axis=1)))[:, :6]
    assert float(found.follow(rows, [2, 0], told, 1.0)) == pytest.approx(0, abs=1e-9)
    assert float(found.follow(-rows.roll(1, 0), [2, 0], told, 1.0)) > 0.1


def test_truncated_texts_are_counted_one_by_one(tiny: Callable[..., Path]) -> None:
    folder, short = tiny(), TASK.model_copy(update={"max_length": 8})
    long = Table(("card", "card " * 9), ("card " * 9, "card " * 9))
    assert truncated_rows(folder, long, short, examples_of(folder, long, short).encoded) == 3


def test_scores_have_no_classes_to_weigh() -> None:
    from edgekit.stages.finetune import Finetune

    with pytest.raises(StageError, match="scores are no classes"):
        Finetune(class_weights=True).metric_of(SENTENCE_SIMILARITY)
