from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.data.load import Columns, load_table
from edgekit.errors import DataError

ODD = "one\u2028two\u2029three\u0085four"  # line ends of Unicode's, which JSON does not escape


def read(path: Path, text: str) -> tuple[str, ...]:
    path.write_text(text, encoding="utf-8", newline="")
    return load_table(str(path), Columns()).texts


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_row_ends_where_no_text_can(tmp_path: Path, end: str) -> None:
    rows = [json.dumps({"text": text}, ensure_ascii=False) + end for text in (ODD, "five")]
    assert read(tmp_path / "a.jsonl", "".join(rows)) == (ODD, "five")


def test_rows_of_a_json_text_sequence_begin_with_a_separator(tmp_path: Path) -> None:
    assert read(tmp_path / "a.jsonl", '\x1e{"text": "one"}\n\x1e{"text": "two"}\n') == ("one", "two")  # RFC 7464


def test_rows_are_counted_by_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 broken row") as caught:
        read(tmp_path / "a.jsonl", f'{{"text": "{ODD}"}}\r\n\r\n{{"text": \r\n')
    assert caught.value.problems[0].where == "row 3"


def test_a_number_of_more_digits_than_can_be_read_is_a_broken_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "score": 1}\n{"text": "b", "score": ' + "9" * 5000 + "}\n")
    with pytest.raises(DataError) as caught:
        load_table(str(tmp_path / "a.jsonl"), Columns())
    assert "row 2: not JSON: Exceeds the limit" in str(caught.value)
    (tmp_path / "b.jsonl").write_text('{"text": "a", "second": "b", "score": ' + "9" * 400 + "}\n")
    with pytest.raises(DataError, match="broken row"):
        load_table(str(tmp_path / "b.jsonl"), Columns(pair="second", label="score", label_kind="score"))
