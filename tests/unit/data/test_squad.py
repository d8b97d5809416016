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
        ('{"data": [{"paragraphs": [{"qas": []}]}]}', "has no questions"),
        ('{"data": [{"paragraphs": [{"qas": [{"question": "a"}]}]}]}', "not SQuAD's format .*context"),
        ('{"data": []}', "has no questions"),
    ],
)
def test_other_shapes_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        load_table(str(tmp_path / "a.json"), COLUMNS)


def test_questions_without_an_answer_are_refused_by_row(tmp_path: Path) -> None:
    qas = [asked("when?", ("May", 22)), asked("who?")]
    with pytest.raises(DataError, match="1 broken row") as caught:
        load_table(write_squad(tmp_path / "a.json", [{"context": CONTEXT, "qas": qas}]), COLUMNS)
    assert [str(problem.where) for problem in caught.value.problems] == ["row 2"]
    assert "no answers" in caught.value.problems[0].what


def test_whole_contexts_are_held_out(tmp_path: Path) -> None:
    paragraphs: list[dict[str, object]] = [
        {"context": f"card {n}", "qas": [asked(f"{n}?", ("card", 0)), asked("which?", ("card", 0))]} for n in range(20)
    ]
    splits = load_splits({"train": write_squad(tmp_path / "a.json", paragraphs)}, COLUMNS)
    train, validation = splits.tables["train"], splits.tables["validation"]
    assert (len(train), len(validation)) == (36, 4)
    assert not set(train.pairs or ()) & set(validation.pairs or ())
    assert "4 rows (10% of the contexts)" in splits.notes[0]
