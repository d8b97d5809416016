from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from edgekit.data.load import Columns, load_table
from edgekit.data.splits import load_splits
from edgekit.errors import DataError
from edgekit.tasks.encoders import columns_of

LABELLED = Columns(text="text", label="label")
ROWS = [("turn it on", "on"), ("turn it off, please", "off"), ('say "hi"', "on")]


def write(tmp_path: Path, name: str, content: bytes | str) -> str:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def sources(tmp_path: Path) -> list[str]:
    csv = 'text,label\nturn it on,on\n"turn it off, please",off\n"say ""hi""",on\n'
    tsv = 'text\tlabel\nturn it on\ton\nturn it off, please\toff\n"say ""hi"""\ton\n'
    jsonl = '{"text": "turn it on", "label": "on"}\n{"text": "turn it off, please", "label": "off"}\n\n'
    jsonl += '{"text": "say \\"hi\\"", "label": "on"}\n'
    table = pyarrow.table({"text": [t for t, _ in ROWS], "label": [label for _, label in ROWS]})
    pyarrow.parquet.write_table(table, tmp_path / "d.parquet")
    files = [write(tmp_path, "d.csv", csv), write(tmp_path, "d.tsv", tsv), write(tmp_path, "d.jsonl", jsonl)]
    return [*files, str(tmp_path / "d.parquet")]


def test_every_kind_of_file_gives_the_same_table(tmp_path: Path) -> None:
    tables = [load_table(source, LABELLED) for source in sources(tmp_path)]
    assert tables[0].texts == tuple(text for text, _ in ROWS)
    assert tables[0].labels == tuple(label for _, label in ROWS)
    assert len({table.digest for table in tables}) == 1


def test_pairs_numbers_and_a_byte_order_mark(tmp_path: Path) -> None:
    source = write(tmp_path, "d.csv", "\ufeffa,b,score\nfirst,second,3\n")
    table = load_table(source, Columns(text="a", pair="b", label="score"))
    assert (table.texts, table.pairs, table.labels) == (("first",), ("second",), ("3",))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.csv", "", "is empty"),
        ("d.csv", "text,label\n", "has a header but no rows"),
        ("d.csv", "test,label\na,b\n", "there is no column 'text' (did you mean 'test'?"),
        ("d.csv", "text,label\na,b\na,b,c\n", "row 2: 3 fields where the header has 2"),
        ("d.csv", "text,label\na,b\n,b\n", "row 2: column 'text' is empty"),
        ("d.csv", 'text,label\na,b\n"open,b\n', "a quote that is never closed"),
        ("d.csv", "text,label\ncaf\xe9,b\n".encode("latin-1"), "is not UTF-8: byte 0xe9 in line 2"),
        ("d.jsonl", '{"text": "a", "label": "b"}\n{"text": \n', "row 2: not JSON"),
        ("d.jsonl", "[1]\n", "row 1: a list where an object was expected"),
        ("d.jsonl", '{"text": ["a"], "label": "b"}\n', "row 1: column 'text' is empty or not a text"),
        ("d.parquet", "not parquet", "not a readable parquet file"),
        ("d.xyz", "a", "unknown kind of file '.xyz'"),
    ],
)
def test_bad_data_is_told_with_its_place(tmp_path: Path, name: str, content: bytes | str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        load_table(write(tmp_path, name, content), LABELLED)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_many_broken_rows_are_counted(tmp_path: Path) -> None:
    rows = "".join("a,b,c\n" for _ in range(25))
    with pytest.raises(DataError) as caught:
        load_table(write(tmp_path, "d.csv", f"text,label\n{rows}"), LABELLED)
    assert "25 broken rows, 15 more not shown" in str(caught.value)
    assert len(caught.value.problems) == 10


def test_plain_text_is_a_row_a_line_or_pieces_of_it(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("where is  my\u2028card\r\n\n top\tup \n", encoding="utf-8", newline="")
    words = load_table(str(file), columns_of("token-classification", labelled=False))
    assert words.texts == ("where is my\u2028card", "top up")
    assert words.label_kind == "words"
    for kind in ("text-classification", "sentence-similarity", "text-to-text"):
        table = load_table(str(file), columns_of(kind, labelled=False))
        assert table.texts == ("where is  my\u2028card", "top\tup")  # as a csv's
    assert load_table(str(file), columns_of("language-modeling")).texts == (file.read_bytes().decode("utf-8"),)
    file.write_text("\n \n")
    with pytest.raises(DataError, match=r"a\.txt is empty"):
        load_table(str(file), columns_of("text-classification", labelled=False))


def test_plain_text_does_not_pass_for_pairs_or_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text\n")
    for columns in (columns_of("text-classification", pair="second", labelled=False), columns_of("question-answering")):
        with pytest.raises(DataError, match=r"a\.txt: plain text has no second text \((second|context)\)"):
            load_table(str(tmp_path / "a.txt"), columns.model_copy(update={"label": ""}))
    with pytest.raises(DataError, match=r"a\.txt: plain text has no pictures"):
        load_table(str(tmp_path / "a.txt"), columns_of("image-classification", labelled=False))


def refused(path: Path) -> bytes:
    raise PermissionError(13, "Permission denied")


def test_a_file_that_gives_no_rows_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="a folder where a file was expected"):
        load_table(str(tmp_path), Columns())
    (tmp_path / "a.txt").write_text("some text\n")
    assert len(load_table(str(tmp_path / "a.txt"), Columns())) == 1
    with pytest.raises(DataError, match=r"a\.txt: plain text has no labels"):
        load_table(str(tmp_path / "a.txt"), Columns(label="label"))
    (tmp_path / "a.csv").write_text("message;topic\nhi;greeting\n")
    with pytest.raises(DataError, match="parted by commas, not by semicolons"):
        load_table(str(tmp_path / "a.csv"), Columns())
    (tmp_path / "b.csv").write_text("message,topic\nhi,greeting\n")
    with pytest.raises(DataError, match=r"columns are: message, topic; name another, or number them all from 1"):
        load_table(str(tmp_path / "b.csv"), Columns())
    with pytest.raises(DataError, match="both the text and its label"):
        load_table(str(tmp_path / "b.csv"), Columns(text="topic", label="topic"))
    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(DataError, match=r"b\.csv: cannot be read \(Permission denied\)"):
        load_table(str(tmp_path / "b.csv"), Columns(text="message"))
    with pytest.raises(DataError, match=r"no such file: nowhere\.csv"):
        load_table("nowhere.csv", LABELLED)


def test_shipped_data_stay_inside_the_package() -> None:
    with pytest.raises(DataError, match="outside"):
        load_table("package:../../README.md", LABELLED)


def test_a_label_that_only_the_test_set_has_is_told(tmp_path: Path) -> None:
    train = write(tmp_path, "train.csv", "text,label\n" + "a,x\nb,y\n" * 10)
    test = write(tmp_path, "test.csv", "text,label\na,x\nb,z\nc,z\n")
    with pytest.raises(DataError) as caught:
        load_splits({"train": train, "test": test}, LABELLED)
    assert "(test): 1 label(s) that the training data do not have: 'z' (2 rows)" in str(caught.value)


def test_a_missing_validation_set_is_held_out_label_by_label(tmp_path: Path) -> None:
    train = write(tmp_path, "train.csv", "text,label\n" + "".join(f"t{i},{'xy'[i % 2]}\n" for i in range(40)))
    splits = load_splits({"train": train}, LABELLED)
    held = splits.tables["validation"]
    assert len(held) == 4
    assert sorted(held.labels or ()) == ["x", "x", "y", "y"]
    assert not set(held.texts) & set(splits.tables["train"].texts)
    assert splits.tables["test"] is held
    assert len(splits.notes) == 2


def test_test_data_alone_also_serve_the_comparison_with_torch(tmp_path: Path) -> None:
    test = write(tmp_path, "test.csv", "text,label\na,x\nb,y\n")
    splits = load_splits({"test": test}, LABELLED)
    assert splits.tables["unlabeled"].labels is None
    assert splits.tables["unlabeled"].texts == ("a", "b")


def test_a_conversation_arrives_as_the_json_of_its_messages(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    messages = [{"role": "user", "content": "Grüße"}, {"role": "assistant", "content": "Hello"}]
    path.write_text(json.dumps({"messages": messages}), encoding="utf-8")
    table = load_table(str(path), Columns(text="messages"))
    assert json.loads(table.texts[0]) == messages
    path.write_text(json.dumps({"messages": ["no", "messages"]}), encoding="utf-8")
    with pytest.raises(DataError, match="1 broken row"):
        load_table(str(path), Columns(text="messages"))


PAIRS = Columns(text="1", pair="2", label="3", label_kind="score")


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.tsv"])
def test_columns_by_number_are_of_a_file_without_a_header(tmp_path: Path, name: str) -> None:
    content = 'a,"b, c",4.750\nd,e,0\n'
    tabs = content.replace(",", "\t").replace("\t c", ", c")
    table = load_table(write(tmp_path, name, tabs if name.endswith("tsv") else content), PAIRS)
    assert (table.texts, table.pairs, table.labels) == (("a", "d"), ("b, c", "e"), ("4.75", "0.0"))
    assert not table.classes
    with pytest.raises(DataError, match="no column '4'"):
        load_table(write(tmp_path, name, tabs if name.endswith("tsv") else content), Columns(text="1", label="4"))


@pytest.mark.parametrize("score", ["", "much", "nan", "inf"])
def test_a_score_is_a_number(tmp_path: Path, score: str) -> None:
    with pytest.raises(DataError, match="1 broken row") as caught:
        load_table(write(tmp_path, "d.csv", f"a,b,1\nc,d,{score}\n"), PAIRS)
    assert caught.value.problems[0].what == "column '3' is empty or not a number"


def test_a_header_may_be_numbers(tmp_path: Path) -> None:
    assert load_table(write(tmp_path, "d.csv", "1,2,3\na,b,2\n"), PAIRS).texts == ("a",)


def test_scores_come_from_jsonl_too(tmp_path: Path) -> None:
    row = {"sentence1": "a", "sentence2": "b", "score": 2.5}
    columns = Columns(text="sentence1", pair="sentence2", label="score", label_kind="score")
    assert load_table(write(tmp_path, "d.jsonl", json.dumps(row)), columns).labels == ("2.5",)


def test_scored_pairs_without_validation_data_have_some_held_out(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text("a,b,score\n" + "".join(f"one {n},two {n},{n % 5}\n" for n in range(40)), encoding="utf-8")
    splits = load_splits({"train": str(file)}, Columns(text="a", pair="b", label="score", label_kind="score"))
    assert (len(splits.tables["train"]), len(splits.tables["validation"])) == (36, 4)
    assert "4 rows (10%) are held out" in splits.notes[0]


def test_plain_text_has_a_text_a_line_whatever_ends_lines_in_unicode(tmp_path: Path) -> None:
    text = "one\u2028two\u2029three\u0085four"
    table = load_table(write(tmp_path, "a.txt", f"{text}\r\nfive\n"), Columns(lines=True))
    assert table.texts == (text, "five")


@pytest.mark.parametrize(
    ("text", "encoding", "suggested"),
    [
        ("今天天气很好，我想出去走走。", "gbk", "gb18030"),
        ('{"text": "银行卡丢了", "label": "lost_card"}', "gb18030", "gb18030"),
        ("caf\xe9", "latin-1", "windows-1252"),
        ("Wir h\xf6ren sch\xf6ne Gr\xf6\xdfen", "latin-1", "windows-1252"),  # which decodes as gb18030 too
        ("где моя карта", "windows-1251", "windows-1252"),  # likewise, as rare characters
    ],
)
def test_another_encoding_is_suggested_by_what_it_makes_of_the_file(
    tmp_path: Path, text: str, encoding: str, suggested: str
) -> None:
    with pytest.raises(DataError, match="is not UTF-8") as caught:
        load_table(write(tmp_path, "d.csv", f"text,label\n{text},a\n".encode(encoding)), LABELLED)
    assert f"iconv -f {suggested} -t utf-8" in caught.value.hint


def test_words_and_labels_in_plain_text_are_told_the_endings_of_conll(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="plain text has no labels") as caught:
        load_table(write(tmp_path, "a.txt", "Paris\tB-x\n"), columns_of("token-classification"))
    assert "a CoNLL file ends in one of .conll, .iob2, .bio;" in caught.value.hint
