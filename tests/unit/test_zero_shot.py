"""Minimal pairs in the report of a file that ships: read from files, and scored with the file's own tokenizer."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.answers import Tried, lm_answers_of, windows_of
from edgekit.artifact import Artifact
from edgekit.data.table import Table
from edgekit.errors import DataError
from edgekit.interrogate import Venue
from edgekit.progress import Silent
from edgekit.rules import parse_rule
from edgekit.runtimes.base import Workload
from edgekit.runtimes.lm import LM_RUNTIMES
from edgekit.targets import find_target
from edgekit.zero_shot import blimp_score, read_pairs
from tests.conftest import bpe_spec
from tests.unit.tiny_lm import sealed, write_gguf, write_hf

GOOD = ("my card is lost", "the money arrived", "where is my transfer")
BAD = ("my card are lost", "the money arrive", "where are my transfer")


def pairs_file(path: Path, count: int = 3) -> Path:
    rows = [{"sentence_good": g, "sentence_bad": b, "UID": path.stem} for g, b in zip(GOOD, BAD, strict=True)]
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:count]), encoding="utf-8")
    return path


def test_pairs_are_read_from_a_file_or_a_folder_of_paradigms(tmp_path: Path) -> None:
    file = pairs_file(tmp_path / "sets" / "a.jsonl")
    pairs_file(tmp_path / "sets" / "b.jsonl", 2)
    (tmp_path / "sets" / "README.md").write_text("not a paradigm")
    assert read_pairs(str(file), 10).texts == GOOD
    both = read_pairs(str(tmp_path / "sets"), 10)
    assert (both.texts, both.pairs) == ((*GOOD, *GOOD[:2]), (*BAD, *BAD[:2]))
    assert read_pairs(str(tmp_path / "sets"), 2).texts == (GOOD[0], GOOD[2])
    (tmp_path / "wrong.jsonl").write_text('{"good": "a", "bad": "b"}\n')
    with pytest.raises(DataError, match="sentence_good"):
        read_pairs(str(tmp_path / "wrong.jsonl"), 10)
    with pytest.raises(DataError, match="no such file"):
        read_pairs(str(tmp_path / "absent.jsonl"), 10)


def test_the_figure_can_be_ruled_on() -> None:
    assert str(parse_rule("minimal_pairs >= baseline - 1pt")) == "minimal_pairs >= baseline - 1pt"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """A tiny Llama and its GGUF, whose folder has a tokenizer but no config.json."""
    pytest.importorskip("llama_cpp")
    home = tmp_path_factory.mktemp("lm")
    original = write_hf(home / "hf", bpe_spec([*GOOD, *BAD], 300), 300)
    gguf = write_gguf(original, home / "gguf")
    shutil.copyfile(original.path / "tokenizer.json", gguf.path / "tokenizer.json")
    (gguf.path / "tokenizer_config.json").write_text(json.dumps({"bos_token": {"content": "<s>"}, "eos_token": "</s>"}))
    (gguf.path / "manifest.json").unlink()
    return {"hf": original, "gguf": sealed(gguf.path, "gguf")}


def test_the_report_has_the_share_of_pairs_where_the_workload_asks(files: dict[str, Artifact], tmp_path: Path) -> None:
    file, gguf = pairs_file(tmp_path / "pairs.jsonl"), files["gguf"]
    table = Table((" ".join(GOOD) * 4,))
    found = {}
    for pairs in ("", str(file)):
        workload = Workload(threads=1, windows=2, pairs=pairs)
        target = replace(find_target("cpu"), runtimes=LM_RUNTIMES)
        windows = windows_of(gguf, table, workload)
        assert windows is not None
        tried = Tried({"gguf": gguf}, "gguf", workload, target, Silent())
        found[pairs] = lm_answers_of(tried, windows, table.digest, tmp_path / "cache")["gguf"].metrics
    assert "minimal_pairs" not in found[""]
    alone = blimp_score(gguf, Table(GOOD, BAD), files["hf"].path, venue=Venue(threads=1))
    assert found[str(file)] == {**found[""], "minimal_pairs": alone.accuracy.value}


def test_a_folder_that_names_no_first_token_is_refused(files: dict[str, Artifact], tmp_path: Path) -> None:
    shutil.copyfile(files["hf"].path / "tokenizer.json", tmp_path / "tokenizer.json")
    with pytest.raises(DataError, match="no token that begins or ends"):
        blimp_score(files["gguf"], Table(GOOD, BAD), tmp_path)
