"""Marian's SentencePiece models as files of the tokenizers library, against Transformers' own tokenizer."""

from __future__ import annotations

import io
import json
import random
import warnings
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import ModelError
from edgekit.formats import marian_tokenizer
from edgekit.formats.package_seq2seq import cut_otherwise, write_tokenizer

sentencepiece = pytest.importorskip("sentencepiece")
WORDS = ["the", "a", "girl", "girls", "dog", "was", "were", "playing", "outside", "house", "said", "they'd", "twice."]
TARGET = ["das", "ein", "Mädchen", "Hund", "war", "waren", "spielten", "draußen", "Haus", "daß", "gesehen", "hätten."]


def sentences(words: list[str], seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(words, k=rng.randint(3, 12))) for _ in range(400)]


def train(words: list[str], kind: str = "unigram") -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences(words, 0)),
        model_writer=model,
        vocab_size=60,
        model_type=kind,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    return model.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizer's files of an OPUS-MT checkpoint, in small."""
    home = tmp_path_factory.mktemp("marian")
    pieces: list[str] = []
    for name, words in (("source.spm", WORDS), ("target.spm", TARGET)):
        (home / name).write_bytes(train(words))
        model = sentencepiece.SentencePieceProcessor(model_file=str(home / name))
        pieces += [model.id_to_piece(i) for i in range(3, model.vocab_size())]
    tokens = ["</s>", "<unk>", *sorted(set(pieces)), ">>deu<<", ">>fra<<", "<pad>"]
    (home / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}), encoding="utf-8")
    (home / "config.json").write_text(json.dumps({"model_type": "marian"}))
    return home


@pytest.fixture(scope="module")
def known(folder: Path) -> Any:
    from transformers import MarianTokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that punctuation is not normalized
        return MarianTokenizer(*(str(folder / name) for name in ("source.spm", "target.spm", "vocab.json")))


def test_texts_are_cut_as_by_transformers(folder: Path, known: Any) -> None:
    made = marian_tokenizer.reader(folder)
    odd = [
        "",
        " two  spaces ",
        "zebra quiz 42 été",
        "Ｆｕｌｌ ｗｉｄｔｈ ﬁ",
        ">>deu<< the dog was outside",
        "Ja, MÄDCHEN",
    ]
    for text in [*sentences(WORDS, 1)[:60], *odd]:
        assert made.encode(text).ids == known(text)["input_ids"], text


def test_answers_are_written_as_by_transformers(folder: Path, known: Any) -> None:
    made = marian_tokenizer.writer(folder)
    for text in sentences(TARGET, 1)[:20]:
        ids = known(text_target=text)["input_ids"]
        assert made.decode(ids) == known.decode(ids, skip_special_tokens=True) == text


def test_both_files_are_written_and_compared(folder: Path, tmp_path: Path) -> None:
    assert write_tokenizer(folder, tmp_path) is True
    assert {path.name for path in tmp_path.iterdir()} == {"tokenizer.json", "target_tokenizer.json"}
    texts = sentences(WORDS, 2)[:10]
    assert cut_otherwise(folder, tmp_path, texts) == []
    (tmp_path / "tokenizer.json").write_bytes((tmp_path / "target_tokenizer.json").read_bytes())
    assert cut_otherwise(folder, tmp_path, texts) == texts


def test_what_cannot_be_read_is_told(folder: Path, tmp_path: Path) -> None:
    for name in ("source.spm", "vocab.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "source.spm").write_bytes(train(WORDS, "char"))
    with pytest.raises(ModelError, match="not of the unigram kind"):
        marian_tokenizer.reader(tmp_path)
    (tmp_path / "source.spm").write_bytes(b"\xff" * 9)
    with pytest.raises(ModelError, match="damaged"):
        marian_tokenizer.reader(tmp_path)
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    (tmp_path / "vocab.json").write_text(json.dumps({**vocabulary, "extra": 9000}))
    with pytest.raises(ModelError, match="numbers are missing"):
        marian_tokenizer.writer(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0}))
    with pytest.raises(ModelError, match="no </s>"):
        marian_tokenizer.writer(tmp_path)
