from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.data.delimited import read_delimited
from edgekit.data.load import Columns, load_table
from edgekit.errors import DataError

LABELLED = Columns(text="text", label="label")
LONG = "word " * 40_000  # beyond Python's 131,072 characters a field


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8", newline="")
    return str(path)


def test_a_tsv_with_quotes_is_read_with_them(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tsv", 'text\tlabel\n"one\ttwo"\tx\n"two\nthree"\ty\n"say ""hi"""\ty\n')
    table = load_table(file, LABELLED)
    assert (table.texts, table.labels) == (("one\ttwo", "two\nthree", 'say "hi"'), ("x", "y", "y"))


@pytest.mark.parametrize(
    ("rows", "texts"),
    [
        ('"Hello" he said\tx\n', ('"Hello" he said',)),
        ('"Hello\tx\nworld\ty\n', ('"Hello', "world")),
        ('one\tx\n"two\ty\nthree\tz"\n', ("one", '"two', "three")),  # with them the last row has one field
        ('"a ""b"" c\tx\n', ('"a ""b"" c',)),
        ('"I love it.\tx\nIt is great."\ty\nbad\tx\n', ('"I love it.', 'It is great."', "bad")),  # two, and valid
    ],
)
def test_a_tsv_whose_quotes_are_of_its_texts_is_read_without(tmp_path: Path, rows: str, texts: tuple[str, ...]) -> None:
    assert load_table(write(tmp_path / "a.tsv", f"text\tlabel\n{rows}"), LABELLED).texts == texts


def test_a_tsv_that_is_valid_neither_way_tells_both(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_table(write(tmp_path / "a.tsv", 'text\tlabel\n"a" b\tx\nc\td\te\n'), LABELLED)
    assert "line 2: '\t' expected after '\"'" in str(caught.value)
    assert "never closed? read without quotes: row 2: 3 fields where the header has 2" in str(caught.value)
    with pytest.raises(DataError, match="1 broken row"):
        load_table(write(tmp_path / "b.tsv", "text\tlabel\na\tb\tc\n"), LABELLED)


def test_a_csv_is_always_read_with_quotes(tmp_path: Path) -> None:
    for text in ('"Hello" he said,x\n', '"Hello,x\n'):
        with pytest.raises(DataError, match="never closed"):
            load_table(write(tmp_path / "a.csv", f"text,label\n{text}"), LABELLED)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_field_is_as_long_as_it_is(tmp_path: Path, name: str) -> None:
    limit = csv.field_size_limit()
    part = "," if name == "a.csv" else "\t"
    table = load_table(write(tmp_path / name, f'text{part}label\n{LONG}{part}x\n"{LONG}"{part}y\n'), LABELLED)
    assert table.texts == (LONG.strip(), LONG.strip())
    assert csv.field_size_limit() == limit


def test_an_open_quote_before_much_text_is_told(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    with pytest.raises(DataError, match="a quote that is never closed"):
        load_table(write(tmp_path / "a.csv", f'text,label\n"a,x\n{LONG},y\n'), LABELLED)
    assert csv.field_size_limit() == limit


@given(st.lists(st.tuples(*[st.text(alphabet='a" \u2028', min_size=1, max_size=5)] * 2), min_size=1, max_size=5))
def test_an_unquoted_tsv_is_read_as_it_is_unless_it_is_a_quoted_one(rows: list[tuple[str, str]]) -> None:
    text = "x\ty\n" + "".join("\t".join(row) + "\n" for row in rows)
    found = read_delimited(Path("a.tsv"), text, True, ["x"])[1]
    try:
        quoted = list(csv.reader(io.StringIO(text), delimiter="\t", strict=True))[1:]
    except csv.Error:
        quoted = [[]]
    joined = any(mark in field for row in quoted for field in row for mark in "\t\n")
    wanted = quoted if {len(row) for row in quoted} == {2} and not joined else rows
    assert [tuple(row.values()) for row in found] == [tuple(row) for row in wanted]
