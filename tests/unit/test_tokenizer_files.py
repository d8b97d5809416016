from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgekit.artifact import Task
from edgekit.data.table import Table
from edgekit.errors import ModelError
from edgekit.plan import with_task
from edgekit.source import HUB_FILES, open_model
from edgekit.stages.base import Context
from edgekit.stages.export import Export, export
from edgekit.stages.factorize import Factorize, factorize
from edgekit.stages.mlm_pretrain import MlmPretrain, mlm_pretrain
from edgekit.stages.trim import Trim, trim
from edgekit.tokenizer_files import open_tokenizer, tokenizer_files, tokenizer_json
from tests.slow_tokenizers import SENTENCEPIECES, TEXTS, VOCABULARY, write_slow

LABELS = ("LABEL_0", "LABEL_1", "LABEL_2")
TASK = Task(labels=LABELS, max_length=24)


def _table() -> Table:
    texts = tuple(text for text in TEXTS if text)
    return Table(texts, labels=tuple(LABELS[i % 3] for i in range(len(texts))), name="data")


def _context(tmp_path: Path) -> Context:
    table = _table()
    return Context(data={"train": table, "validation": table, "unlabeled": table}, task=TASK, scratch=tmp_path / "tmp")


def _transformers(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _ids(folder: Path) -> list[list[int]]:
    return [encoding.ids for encoding in open_tokenizer(folder).encode_batch(TEXTS)]


@pytest.mark.parametrize("name", VOCABULARY)
def test_a_file_exported_of_a_slow_tokenizers_folder_has_the_same_ids(tmp_path: Path, name: str) -> None:
    folder, out = write_slow(tmp_path / name, name), tmp_path / "out"
    before = sorted(path.name for path in folder.iterdir())
    out.mkdir()
    export(with_task(open_model(str(folder)), TASK), Export(), out, _context(tmp_path))
    assert (out / "tokenizer.json").is_file()
    assert _ids(out) == [_transformers(folder)(text)["input_ids"] for text in TEXTS]
    assert sorted(path.name for path in folder.iterdir()) == before  # nothing is written to it


@pytest.mark.parametrize("name", VOCABULARY)
def test_what_is_made_of_a_slow_tokenizers_files_repeats(tmp_path: Path, name: str) -> None:
    from edgekit.tokenizer_files import _convert

    folder = write_slow(tmp_path / name, name)
    first = tokenizer_files(folder)
    _convert.cache_clear()
    assert tokenizer_files(folder) == first


def test_files_that_changed_are_read_again(tmp_path: Path) -> None:
    folder = write_slow(tmp_path / "bert", "bert")
    first = tokenizer_json(folder)
    with (folder / "vocab.txt").open("a", encoding="utf-8") as file:
        file.write("another\n")
    assert tokenizer_json(folder) != first


@pytest.mark.parametrize(
    ("stage", "config"),
    [
        (factorize, Factorize(modules=("ffn",), rank_by="budget", budget=0.6, round_to=4)),
        (trim, Trim(budget="size", share=0.8, round_to=4, samples=8)),
        (mlm_pretrain, MlmPretrain(epochs=1, batch_size=4)),
    ],
)
def test_a_stage_hands_a_slow_tokenizer_on_as_a_fast_one(tmp_path: Path, stage: Any, config: Any) -> None:
    folder, out = write_slow(tmp_path / "xlm-r", "xlm-roberta", layers=2), tmp_path / "out"
    out.mkdir()
    stage(with_task(open_model(str(folder)), TASK), config, out, _context(tmp_path))
    assert _ids(out) == [_transformers(folder)(text)["input_ids"] for text in TEXTS]


def test_the_hub_is_asked_for_every_sentencepiece_file() -> None:
    assert {file for file, _ in SENTENCEPIECES.values()} | {"tokenizer.model"} <= set(HUB_FILES)


@pytest.mark.parametrize(
    ("absent", "told"),
    [
        (("sentencepiece",), "sentencepiece"),
        (("sentencepiece", "google.protobuf"), "sentencepiece and protobuf"),
    ],
)
def test_a_package_that_is_absent_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: tuple[str, ...], told: str
) -> None:
    monkeypatch.setattr("edgekit.tokenizer_files._installed", lambda name: name not in absent)
    folder = write_slow(tmp_path / "deberta", "deberta-v2")
    with pytest.raises(ModelError, match=f"spm.model takes {told}") as caught:
        tokenizer_json(folder)
    assert caught.value.hint == f"pip install {told.replace(' and', '')}"


def test_a_tiktoken_file_wants_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.tokenizer_files._installed", lambda name: False)
    (tmp_path / "tokenizer.model").write_text("IQ== 0\n")
    with pytest.raises(ModelError, match="takes tiktoken"):
        tokenizer_json(tmp_path)


def test_a_file_that_the_tokenizers_class_does_not_read_is_told(tmp_path: Path) -> None:
    """Transformers makes a tokenizer of five special tokens of it, without a word."""
    folder = write_slow(tmp_path / "xlm-r", "xlm-roberta")
    (folder / "sentencepiece.bpe.model").rename(folder / "spm.model")
    with pytest.raises(ModelError, match=r"XLMRobertaTokenizer reads none of its spm\.model"):
        tokenizer_json(folder)


def test_a_file_that_is_damaged_is_told(tmp_path: Path) -> None:
    folder = write_slow(tmp_path / "albert", "albert")
    (folder / "spiece.model").write_bytes(b"\n\xff\xff")
    with pytest.raises(ModelError, match=r"none can be made of its spiece\.model"):
        tokenizer_json(folder)


def test_a_damaged_fast_tokenizer_is_told(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {}}))
    with pytest.raises(ModelError, match="damaged"):
        open_tokenizer(tmp_path)


def test_a_folder_without_any_is_told(tmp_path: Path) -> None:
    folder = write_slow(tmp_path / "bert", "bert")
    (folder / "vocab.txt").unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        tokenizer_json(folder)
    shutil.copyfile(folder / "config.json", tmp_path / "config.json")
    with pytest.raises(ModelError, match="has no tokenizer"):
        open_model(str(folder))
