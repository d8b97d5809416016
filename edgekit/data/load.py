"""Data sets from csv, tsv, jsonl, parquet, CoNLL, SQuAD's JSON, plain text, folders of pictures, or the hub: a `Table`.

Every problem names the file and the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgekit.artifact import Frozen
from edgekit.data.cells import cell, score, words
from edgekit.data.conll import read_conll
from edgekit.data.delimited import read_delimited
from edgekit.data.hub import read_hub
from edgekit.data.jsonl import read_jsonl
from edgekit.data.parquet import read_parquet
from edgekit.data.pictures import find_pictures, read_folder
from edgekit.data.rows import MAX_PROBLEMS, Row, raise_broken
from edgekit.data.squad import answers_label, is_unanswered, read_squad
from edgekit.data.table import LabelKind, Table
from edgekit.data.tags import TAGS, to_bio
from edgekit.data.texts import decode, read_lines, read_pieces
from edgekit.errors import DataError, Problem

__all__ = ["Columns", "load_table", "suggest_column"]

FILES = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".parquet": "parquet", ".txt": "txt"}
FILES |= {".conll": "conll", ".iob2": "conll", ".bio": "conll", ".json": "squad"}


class Columns(Frozen):
    """Which columns hold the text, the second text of a pair, and the label; and what a label is.

    For labels of words, the text and the label are lists, or texts with a space between words; a CoNLL file has them
    as columns `tokens` and `labels`. Labels of entities in another scheme become BIO. For answers, the text is the
    question, the pair its context, and the label a list of answers, each its text and answer_start, as SQuAD's JSON has
    them. A csv or tsv file whose columns are all named by number, from "1", has no header. `pictures`: the text is a
    picture: a path (from the data file's folder), or {"bytes", "path"}. `lines`: of plain text each line is a row; else
    pieces of it are, for language modeling.
    """

    text: str = "text"
    pair: str = ""
    label: str = ""  # empty: unlabeled
    label_kind: LabelKind = "class"
    pictures: bool = False
    lines: bool = False

    @property
    def named(self) -> tuple[str, ...]:
        return tuple(name for name in (self.text, self.pair, self.label) if name)


def load_table(source: str, columns: Columns, *, split: str = "train", rows: int = 0) -> Table:
    """Read `source`: a file (.csv, .tsv, .jsonl, .parquet, .conll, .json, .txt), shipped data (`package:FILE`), the hub
    (`hub:OWNER/NAME[:CONFIG]`), or of pictures a folder with a sub-folder for each label. Labels of words come from a
    file of any other ending as CoNLL.

    Plain text is in no column: with `lines` each line that is not blank is a row, without it rows are of about 4,000
    characters that end with a line, unchanged. `split` picks the hub data set's split; `rows` > 0 keeps the first so
    many. Raises DataError for a missing file or column, plain text where a pair or a picture is wanted, wrong encoding,
    an empty file, or broken rows (each with its number, counted from 1 after the header).
    """
    base = Path()
    if source.startswith("hub:"):
        header, records = read_hub(source.removeprefix("hub:"), split, pictures=columns.pictures)
    elif columns.pictures and Path(source).is_dir():
        base = Path(source)
        header, records = read_folder(base, columns.text, columns.label)
    else:
        path = _shipped(source) if source.startswith("package:") else Path(source)
        base = path.parent
        try:
            if path.suffix.lower() == ".txt" and path.is_file():
                return _plain(path, columns, rows)
            header, records = _read_file(path, columns)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    _check_columns(source, header, columns)
    if columns.pictures:
        records, pictures, broken = find_pictures(records, columns.text, base)
        raise_broken(source, broken)
        table = replace(_to_table(source, records, columns), pictures=pictures)
    else:
        table = _to_table(source, records, columns)
    return table.head(rows) if rows else table


def _plain(path: Path, columns: Columns, rows: int) -> Table:
    if columns.label:
        hint = f"give a file with columns {columns.text!r} and {columns.label!r}: csv, tsv, jsonl or parquet"
        if columns.label_kind == "words":
            endings = ", ".join(ending for ending, kind in FILES.items() if kind == "conll")
            hint = f"a CoNLL file ends in one of {endings}; a file with lists in columns is jsonl or parquet"
        raise DataError(f"{path}: plain text has no labels", hint=hint)
    if columns.pictures or (columns.pair and columns.label_kind != "score"):
        what = "pictures" if columns.pictures else f"second text ({columns.pair})"
        raise DataError(f"{path}: plain text has no {what}", hint="give csv, tsv, jsonl or parquet")
    texts = read_lines(path, words if columns.label_kind == "words" else cell) if columns.lines else read_pieces(path)
    return Table(texts[:rows] if rows else texts, name=str(path), label_kind=columns.label_kind)


def suggest_column(name: str, header: Sequence[str]) -> str:
    """The header's nearest name, as a hint."""
    from difflib import get_close_matches

    near = get_close_matches(name, header, n=1, cutoff=0.5)
    found = f"columns are: {', '.join(header)}"
    if len(header) == 1 and ";" in header[0]:
        return f"{found}; fields are parted by commas, not by semicolons (or tabs, in .tsv)"
    if near:
        return f"did you mean {near[0]!r}? {found}"
    return f"{found}; name another, or number them all from 1 where the file has no header"


def _shipped(source: str) -> Path:
    """`package:home_intents/train.csv` -> the file inside the installed edgekit."""
    path = Path(__file__).parent / source.removeprefix("package:")
    if not path.resolve().is_relative_to(Path(__file__).parent):
        raise DataError(f"{source}: outside of the package's data")
    return path


def _read_file(path: Path, columns: Columns) -> tuple[list[str], list[Row]]:
    if not path.is_file():
        raise DataError(f"a folder where a file was expected: {path}" if path.is_dir() else f"no such file: {path}")
    kind = FILES.get(path.suffix.lower(), "conll" if columns.label_kind == "words" else "")
    if not kind:
        raise DataError(f"{path}: unknown kind of file {path.suffix!r}", hint=f"use one of {', '.join(FILES)}")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty")
    if kind == "parquet":
        return read_parquet(path)
    text = decode(path)
    if kind == "conll":
        return read_conll(path, text)
    if kind == "squad":
        return read_squad(path, text)
    header, records = (
        read_jsonl(path, text) if kind == "jsonl" else read_delimited(path, text, kind == "tsv", columns.named)
    )
    if not records:
        raise DataError(f"{path} has a header but no rows" if header else f"{path} is empty")
    return header, records


def _check_columns(source: str, header: Sequence[str], columns: Columns) -> None:
    wanted = {"text": columns.text, "pair": columns.pair, "label": columns.label}
    problems = tuple(
        Problem(f"{role} column", f"there is no column {name!r}", suggest_column(name, header))
        for role, name in wanted.items()
        if name and name not in header
    )
    if problems:
        raise DataError(f"{source}: missing column", problems=problems)
    if columns.label_kind == "class" and columns.label and columns.label == columns.text:
        what = f"{source}: the column {columns.text!r} is to be both the text and its label"
        raise DataError(what, hint=suggest_column("", header))


def _check_answered(source: str, records: Sequence[Row], label: str) -> None:
    rows = [number for number, record in enumerate(records, 1) if is_unanswered(record.get(label))]
    if rows:
        told = tuple(Problem(f"row {number}", "no answer") for number in rows[:MAX_PROBLEMS])
        what = f"{len(rows)} of {len(records)} questions have no answer; unanswerable questions are not supported"
        hint = "leave these rows out (SQuAD 2.0 marks them is_impossible)"
        raise DataError(f"{source}: {what}", hint=hint, problems=told)


def _to_table(source: str, records: Sequence[Row], columns: Columns) -> Table:
    if columns.label_kind == "answers" and columns.label:
        _check_answered(source, records, columns.label)
    texts: list[str] = []
    pairs: list[str] = []
    labels: list[str] = []
    broken: list[Problem] = []
    for number, record in enumerate(records, 1):
        for name, into in ((columns.text, texts), (columns.pair, pairs), (columns.label, labels)):
            if not name:
                continue
            value = _value(record, name, columns)
            if value is None:
                kinds = {
                    "answers": "not answers, each with its text and answer_start",
                    "score": "empty or not a number",
                }
                what = kinds.get(columns.label_kind, "") if into is labels else ""
                broken.append(Problem(f"row {number}", f"column {name!r} is {what or 'empty or not a text'}"))
            else:
                into.append(value)
    raise_broken(source, broken)
    if columns.label_kind == "words":
        labels, broken = to_bio(labels)
        raise_broken(source, broken, hint=TAGS)
    return Table(
        tuple(texts),
        tuple(pairs) if columns.pair else None,
        tuple(labels) if columns.label else None,
        source,
        columns.label_kind,
    )


def _value(record: Row, name: str, columns: Columns) -> str | None:
    """A column's value as a `Table` holds it; None for what cannot be one."""
    value = record.get(name)
    if columns.label_kind == "words":
        return words(value)
    if columns.label_kind == "score" and name == columns.label:
        return score(value)
    if columns.label_kind == "answers" and name != columns.text:
        context = record.get(columns.pair)  # as it stands: answers are found by their place in it
        if not isinstance(context, str) or not context.strip():
            return None
        return context if name == columns.pair else answers_label(value, context)
    return cell(value)
