"""Letter case for an uncased encoder: texts without capitals are answered as before, those with them are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from edgekit.artifact import Artifact, Task
from edgekit.data.table import Table
from edgekit.errors import StageError
from edgekit.nn.load import is_trained, load_classifier
from edgekit.shapes import next_shape, parameters, shape_of
from edgekit.stages.base import Config, Context, Outcome
from edgekit.stages.export import Export
from edgekit.stages.factorize import Factorize, factorize
from edgekit.stages.prune import Prune, prune
from edgekit.stages.recase import Recase, recase

LABELS = ("LABEL_0", "LABEL_1", "LABEL_2")
TASK = Task(labels=LABELS, max_length=16)
TRAIN = Table(("Card is lost", "where is my money") * 8, labels=LABELS[:2] * 8, name="train")
SMALL, CAPITAL = "my card is lost", "My Card is lost"
Tiny = Callable[..., Path]


def recased(source: Path, out: Path, **options: Any) -> Outcome:
    out.mkdir()
    return recase(Artifact.outside(source, TASK), Recase(**options), out, Context(task=TASK))


def logits(folder: Path, text: str) -> torch.Tensor:
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    with torch.inference_mode():
        return load_classifier(folder)(input_ids=torch.tensor([ids])).logits


@pytest.mark.parametrize("family", ["bert", "distilbert", "electra"])
def test_only_texts_with_capitals_are_read_differently(tiny: Tiny, tmp_path: Path, family: str) -> None:
    source, out = tiny(family), tmp_path / "out"
    outcome = recased(source, out)
    assert torch.equal(logits(source, SMALL), logits(source, CAPITAL))
    assert torch.equal(logits(out, SMALL), logits(source, SMALL))
    assert not torch.allclose(logits(out, CAPITAL), logits(source, CAPITAL), atol=1e-4)
    added = int(outcome.facts.numbers["tokens_added"])
    assert load_classifier(out).config.vocab_size == load_classifier(source).config.vocab_size + added
    assert not list(out.glob("vocab.txt"))


def test_new_rows_lie_in_one_direction_from_their_own(tiny: Tiny, tmp_path: Path) -> None:
    source = tiny("bert")
    recased(source, tmp_path / "out", shift=0.25)
    old, new = (
        load_classifier(folder).bert.embeddings.word_embeddings.weight.data for folder in (source, tmp_path / "out")
    )
    tokens = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).get_vocab()
    moved = torch.stack([new[tokens[f"ˇ{word}"]] - new[tokens[word]] for word in ("card", "my", "lost")])
    assert torch.equal(new[: len(old)], old)
    assert torch.allclose(moved, moved[:1].expand_as(moved), atol=1e-6)
    assert float(moved[0].norm()) == pytest.approx(0.25 * float(old.norm(dim=1).mean()), rel=1e-5)


def test_transformers_splits_texts_by_the_same_file(tiny: Tiny, tmp_path: Path) -> None:
    recased(tiny("bert"), tmp_path / "out")
    ours = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).encode(CAPITAL).ids
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs(CAPITAL)["input_ids"] == ours
    assert theirs(["Card", CAPITAL], padding=True)["input_ids"][1] == ours
    names = (theirs.pad_token, theirs.cls_token, theirs.sep_token, theirs.unk_token, theirs.mask_token)
    assert names == ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")


def test_an_encoder_without_a_head_stays_one_and_gives_the_same_bytes(tiny: Tiny, tmp_path: Path) -> None:
    source = tiny("bert", head=False)
    for name in ("a", "b"):
        recased(source, tmp_path / name)
    assert not is_trained(tmp_path / "a") and is_trained(tiny("bert"))
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b")]
    assert files[0] == files[1]


def test_a_table_that_lacks_a_tokens_row_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    source = tiny("bert")
    model = load_classifier(source)
    model.resize_token_embeddings(model.config.vocab_size - 3)
    model.save_pretrained(source)
    with pytest.raises(StageError, match="the model only"):
        recased(source, tmp_path / "out")


def test_rows_to_spare_are_left_out(tiny: Tiny, tmp_path: Path) -> None:
    """Some models pad their table to a round number."""
    source = tiny("bert")
    model = load_classifier(source)
    model.resize_token_embeddings(model.config.vocab_size + 5)
    model.save_pretrained(source)
    recased(source, tmp_path / "out")
    assert torch.equal(logits(tmp_path / "out", SMALL), logits(source, SMALL))
    tokens = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).get_vocab()
    assert load_classifier(tmp_path / "out").config.vocab_size == len(tokens)


def test_a_recased_model_can_be_cut_further(tiny: Tiny, tmp_path: Path) -> None:
    recased(tiny("bert"), tmp_path / "cased")
    out = tmp_path / "out"
    out.mkdir()
    context = Context(data={"train": TRAIN}, task=TASK)
    prune(Artifact.outside(tmp_path / "cased", TASK), Prune(vocabulary=True, vocabulary_keep="data"), out, context)
    assert torch.allclose(logits(out, "Card is lost"), logits(tmp_path / "cased", "Card is lost"), atol=1e-6)


def test_what_cannot_be_recased_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="this one is BPE"):
        recased(tiny("roberta"), tmp_path / "a")
    thin = tmp_path / "thin"
    thin.mkdir()
    context = Context(data={"train": TRAIN}, task=TASK)
    factorize(Artifact.outside(tiny("bert"), TASK), Factorize(modules=("embedding",), round_to=2), thin, context)
    with pytest.raises(StageError, match="two thin matrices"):
        recased(thin, tmp_path / "b")


def test_the_plan_refuses_a_cased_tokenizer_in_a_slow_ones_files(tiny: Tiny) -> None:
    source = tiny("bert")
    (source / "tokenizer.json").unlink()
    shape = shape_of(Artifact.outside(source, TASK), TASK)
    assert next_shape(shape, "recase", Recase(), TASK, source, {})[1] == []
    settings = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    (source / "tokenizer_config.json").write_text(json.dumps({**settings, "do_lower_case": False}), encoding="utf-8")
    [problem] = next_shape(shape, "recase", Recase(), TASK, source, {})[1]
    assert problem.what == "this tokenizer tells letter case already"


def test_the_plan_knows_its_size_and_what_it_rules_out(tiny: Tiny, tmp_path: Path) -> None:
    source = tiny("bert")
    shape = shape_of(Artifact.outside(source, TASK), TASK)
    after, problems = next_shape(shape, "recase", Recase(), TASK, source, {})
    assert not problems
    recased(source, tmp_path / "out")
    made = shape_of(Artifact.outside(tmp_path / "out", TASK), TASK)
    assert parameters(after, TASK) == parameters(made, TASK)
    refused: list[tuple[str, Config, str]] = [
        ("export", Export(format="gguf"), "llama.cpp's WordPiece makes all letters small"),
        ("recase", Recase(), "tells letter case already"),
    ]
    for stage, config, what in refused:
        assert any(what in problem.what for problem in next_shape(after, stage, config, TASK, source, {})[1])
    thin = next_shape(shape, "factorize", Factorize(modules=("embedding",)), TASK, source, {})[0]
    assert next_shape(thin, "recase", Recase(), TASK, source, {})[1][0].hint == "put recase before factorize"
    roberta = tiny("roberta")
    [problem] = next_shape(shape_of(Artifact.outside(roberta, TASK), TASK), "recase", Recase(), TASK, roberta, {})[1]
    assert "this one is BPE" in problem.what
