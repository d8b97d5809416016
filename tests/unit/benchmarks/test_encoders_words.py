"""The sentences that a tagger's student learns from besides its data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from benchmarks.encoders_words import LONGEST, SHORTEST, write_sentences
from benchmarks.record import data_folder


def letters(words: Iterable[str]) -> str:
    """However the words were cut."""
    return re.sub(r"\W+", "", "".join(words).lower())


def test_sentences_are_many_each_once_and_none_of_the_test_data(tmp_path: Path) -> None:
    sets = data_folder()
    if sets is None:
        pytest.skip("the shared data sets are not beside the checkout")
    write_sentences(sets, tmp_path / "a.jsonl")
    lines = (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()
    found = {tuple(json.loads(line)["tokens"]) for line in lines}
    assert len(found) == len(lines) > 60_000
    assert all(SHORTEST <= len(words) <= LONGEST for words in found)
    blocks = (sets / "wnut17" / "emerging.dev.conll").read_text(encoding="utf-8").split("\n\n")
    tested = {letters(line.split("\t")[0] for line in block.splitlines()) for block in blocks}
    assert not tested & {letters(words) for words in found} - {""}
    write_sentences(sets, tmp_path / "b.jsonl")
    assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()
