from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.data.conll import read_conll
from edgekit.data.load import Columns, load_table
from edgekit.data.splits import load_splits
from edgekit.errors import DataError

WORDS = Columns(text="tokens", label="labels", label_kind="words")
WNUT = "Empire\tB-location\nState\tI-location\n=\tO\n\t\n#photography\tO\n\u3000\tO\n"
UNER = "# sent_id = 1\n# text = 長榮\n1\t長榮\tB-ORG\t-\t-\n2\t在\tO\t-\t-\n\n# text = #\n1\t#\tO\t-\t-\n"
CONLL = "-DOCSTART- -X- -X- O\n\n# NN B-NP O\nEU NNP B-NP B-ORG\n"


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8", newline="")
    return str(path)


@given(st.lists(st.text(alphabet="a\u00a0\u3000\u2028\u0085 ", min_size=1, max_size=6), min_size=1, max_size=4))
def test_words_of_odd_spaces_are_read_as_they_are(words: list[str]) -> None:
    words = [word.strip() or "\u3000" for word in "".join(words).split(" ") if word]
    text = "".join(f"{word} O\n" for word in words) or "a O\n"
    (row,) = read_conll(Path("a.conll"), text)[1]
    assert row["tokens"] == (words or ["a"])


@pytest.mark.parametrize(
    ("name", "text", "texts", "labels"),
    [
        ("a.conll", WNUT, ("Empire State =", "#photography \u3000"), ("B-location I-location O", "O O")),
        ("a.annotated", WNUT.replace("\n", "\r\n"), ("Empire State =", "#photography \u3000"), None),
        ("a.iob2", UNER, ("長榮 在", "#"), ("B-ORG O", "O")),
        ("a.txt2", CONLL, ("# EU",), ("O B-ORG",)),
        ("a.conll", "\u3000 O\r\n10\u00a0km  B-x \r\n", ("\u3000 10\u00a0km",), ("O B-x",)),
        ("a.conll", "one\u2028two\u0085three O\n", ("one\u2028two\u0085three",), ("O",)),
        ("a.conll", "EU B-x\r\rrejects O\rit O\r", ("EU", "rejects it"), ("B-x", "O O")),
        ("a.conll", "in\u00a0O\nRome\u00a0B-x\u00a0\n", ("in Rome",), ("O B-x",)),  # parted by nothing else
        ("a.jsonl", '{"tokens": ["New York", "!"], "labels": ["B-x", "O"]}', ("New\u00a0York !",), ("B-x O",)),
    ],
)
def test_words_and_labels(
    tmp_path: Path, name: str, text: str, texts: tuple[str, ...], labels: tuple[str, ...] | None
) -> None:
    table = load_table(write(tmp_path / name, text), WORDS)
    assert table.texts == texts
    assert labels is None or table.labels == labels


def test_another_column_is_named_by_its_number(tmp_path: Path) -> None:
    columns = WORDS.model_copy(update={"label": "3"})
    table = load_table(write(tmp_path / "a.conll", CONLL), columns)
    assert table.labels == ("B-NP B-NP",)
    with pytest.raises(DataError, match="missing column"):
        load_table(write(tmp_path / "a.conll", CONLL), WORDS.model_copy(update={"label": "5"}))


def test_a_line_that_lacks_its_label_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a CoNLL file") as caught:
        load_table(write(tmp_path / "a.conll", "Paris\tB-location\nis\t\n"), WORDS)
    assert caught.value.problems[0].where == "line 2"
    with pytest.raises(DataError, match="not a CoNLL file"):  # no comment where spaces part
        load_table(write(tmp_path / "c.conll", "Paris B-location\n#tag\n"), WORDS)
    with pytest.raises(DataError, match="no sentences"):
        load_table(write(tmp_path / "b.conll", "\n\n"), WORDS)


def test_a_type_counts_as_known_by_either_of_its_labels(tmp_path: Path) -> None:
    train = write(tmp_path / "train.conll", "Paris\tB-location\n\n" * 20)
    test = write(tmp_path / "test.conll", "New\tB-location\nYork\tI-location\n")
    splits = load_splits({"train": train, "test": test}, WORDS)
    assert len(splits.tables["validation"]) == 2
    other = write(tmp_path / "other.conll", "Bach\tB-person\n")
    with pytest.raises(DataError, match="'B-person', 'I-person'"):
        load_splits({"train": train, "test": other}, WORDS)
