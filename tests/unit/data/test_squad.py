from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.data.load import Columns, load_table
from edgekit.data.splits import load_splits
from edgekit.errors import DataError

COLUMNS = Columns(text="question", pair="context", label="answers", label_kind="answers")
CONTEXT = " The card was lost in May. The card came back in June. "


def write_squad(path: Path, paragraphs: list[dict[str, object]]) -> str:
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}), "utf-8")
    return str(path)


def asked(question: str, *answers: tuple[str, int]) -> dict[str, object]:
    told = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": question, "question": question, "answers": told}


def test_squad_is_a_row_for_each_question_with_its_context_as_it_stands(tmp_path: Path) -> None:
    qas = [asked(" when? ", ("May", 22)), asked("what?", ("The card", 27), ("card", 6), ("a card", -1))]
    table = load_table(write_squad(tmp_path / "a.json", [{"context": CONTEXT, "qas": qas}]), COLUMNS)
    assert (table.texts, table.pairs) == (("when?", "what?"), (CONTEXT, CONTEXT))
    assert [json.loads(label) for label in table.labels or ()] == [
        [["May", 22]],
        [["The card", 27], ["card", 5], ["a card", -1]],  # at the nearest place; -1 where it does not stand
    ]
    assert table.classes == frozenset()
    unlabeled = load_table(str(tmp_path / "a.json"), COLUMNS.model_copy(update={"label": ""}))
    assert unlabeled.labels is None


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_flat_files_hold_the_same(tmp_path: Path, ending: str) -> None:
    rows = [
        {"id": "1", "question": "when?", "context": CONTEXT, "answers": {"text": ["May"], "answer_start": [22]}},
        {"id": "2", "question": "what?", "context": CONTEXT, "answers": {"text": ["card"], "answer_start": [5]}},
    ]
    path = tmp_path / f"a.{ending}"
    if ending == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    table = load_table(str(path), COLUMNS)
    assert table.labels == ('[["May", 22]]', '[["card", 5]]')


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "line 1: not JSON"),
        ("[]", "not SQuAD's format"),
        ("[1]", "not SQuAD's format"),
        ('[{"context_text": "a", "qas": [{"query_text": "b"}]}]', "not SQuAD's format .*answers"),
        ('{"data": [{"paragraphs": [{"qas": []}]}]}', "has no questions"),
        ('{"data": [{"paragraphs": [{"qas": [{"question": "a"}]}]}]}', "not SQuAD's format .*context"),
        ('{"data": []}', "has no questions"),
    ],
)
def test_other_shapes_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        load_table(str(tmp_path / "a.json"), COLUMNS)


NO_ANSWERS: list[object] = [
    [],
    None,
    [{"text": "", "answer_start": -1}],
    {"text": [], "answer_start": []},
    {"text": [""], "answer_start": [0]},
]


@pytest.mark.parametrize("nothing", NO_ANSWERS)
@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_questions_without_an_answer_are_counted_and_refused(tmp_path: Path, nothing: object, ending: str) -> None:
    told = [{"text": "May", "answer_start": 22}]
    qas = [{"question": f"{n}?", "answers": told if n == 1 else nothing, "is_impossible": n != 1} for n in range(3)]
    if ending == "json":
        file = write_squad(tmp_path / "a.json", [{"context": CONTEXT, "qas": qas}])
    else:
        file = str(tmp_path / "a.jsonl")
        Path(file).write_text("\n".join(json.dumps({**row, "context": CONTEXT}) for row in qas), "utf-8")
    with pytest.raises(DataError, match="2 of 3 questions have no answer; unanswerable questions are not") as caught:
        load_table(file, COLUMNS)
    assert [problem.where for problem in caught.value.problems] == ["row 1", "row 3"]
    assert "leave these rows out" in caught.value.hint


def test_other_broken_answers_are_told_by_row(tmp_path: Path) -> None:
    qas: list[object] = [asked("when?", ("May", 22)), {"question": "who?", "answers": [{"text": "May"}]}]
    with pytest.raises(DataError, match="1 broken row") as caught:
        load_table(write_squad(tmp_path / "a.json", [{"context": CONTEXT, "qas": qas}]), COLUMNS)
    assert (
        str(caught.value.problems[0]) == "row 2: column 'answers' is not answers, each with its text and answer_start"
    )


def test_cmrc_as_it_was_published_is_read_too(tmp_path: Path) -> None:
    asked = [{"query_id": "1", "query_text": "何时？", "answers": ["六月", "六月", "七月"]}]
    content = [{"context_id": "a", "context_text": "五月和六月，六月", "title": "t", "qas": asked}]
    (tmp_path / "a.json").write_text(json.dumps(content), "utf-8")
    table = load_table(str(tmp_path / "a.json"), COLUMNS)
    assert (table.texts, table.pairs) == (("何时？",), ("五月和六月，六月",))
    assert table.labels == ('[["六月", 3], ["六月", 3], ["七月", -1]]',)
    (tmp_path / "b.json").write_text(json.dumps([{**content[0], "qas": [{**asked[0], "answers": "六月"}]}]), "utf-8")
    with pytest.raises(DataError, match="answers is no list"):
        load_table(str(tmp_path / "b.json"), COLUMNS)


def test_whole_contexts_are_held_out(tmp_path: Path) -> None:
    paragraphs: list[dict[str, object]] = [
        {"context": f"card {n}", "qas": [asked(f"{n}?", ("card", 0)), asked("which?", ("card", 0))]} for n in range(20)
    ]
    splits = load_splits({"train": write_squad(tmp_path / "a.json", paragraphs)}, COLUMNS)
    train, validation = splits.tables["train"], splits.tables["validation"]
    assert (len(train), len(validation)) == (36, 4)
    assert not set(train.pairs or ()) & set(validation.pairs or ())
    assert "4 rows (10% of the contexts)" in splits.notes[0]
