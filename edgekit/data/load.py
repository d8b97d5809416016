"""Data sets from csv, tsv, jsonl, parquet, CoNLL, SQuAD's JSON, plain text, folders of pictures, or the hub: a `Table`.

Every problem names the file and the row.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from edgekit.artifact import Frozen
from edgekit.data.conll import read_conll
from edgekit.data.pictures import find_pictures, read_folder
from edgekit.data.squad import answers_label, read_squad
from edgekit.data.table import LabelKind, Table
from edgekit.errors import DataError, MissingExtraError, Problem

__all__ = ["Columns", "load_table", "suggest_column"]

FILES = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".parquet": "parquet", ".txt": "txt"}
FILES |= {".conll": "conll", ".iob2": "conll", ".bio": "conll", ".json": "squad"}
SPACE = re.compile(r"[ \t\r\n]+")  # not all of Unicode's: some words are nothing else
Row = Mapping[str, object]
MAX_PROBLEMS = 10  # rows shown at once
PIECE = 4000  # characters, about, of plain text that become one row


class Columns(Frozen):
    """Which columns hold the text, the second text of a pair, and the label; and what a label is.

    For labels of words, the text and the label are lists, or texts with a space between words; a CoNLL file has them
    as columns `tokens` and `labels`. For answers, the text is the question, the pair its context, and the label a list
    of answers, each its text and answer_start, as SQuAD's JSON has them. A csv or tsv file whose columns are all named
    by number, from "1", has no header. `pictures`: the text is a picture: a path (from the data file's folder), or
    {"bytes", "path"}. `lines`: of plain text each line is a row; else pieces of it are, for language modeling.
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
        header, records = _read_hub(source.removeprefix("hub:"), split, pictures=columns.pictures)
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
        _raise_broken(source, broken)
        table = replace(_to_table(source, records, columns), pictures=pictures)
    else:
        table = _to_table(source, records, columns)
    return table.head(rows) if rows else table


def _plain(path: Path, columns: Columns, rows: int) -> Table:
    if columns.label:
        hint = f"give a file with columns {columns.text!r} and {columns.label!r}: csv, tsv, jsonl or parquet"
        raise DataError(f"{path}: plain text has no labels", hint=hint)
    if columns.pictures or (columns.pair and columns.label_kind != "score"):
        what = "pictures" if columns.pictures else f"second text ({columns.pair})"
        raise DataError(f"{path}: plain text has no {what}", hint="give csv, tsv, jsonl or parquet")
    texts = _lines(path, _words if columns.label_kind == "words" else _cell) if columns.lines else _pieces(path)
    return Table(texts[:rows] if rows else texts, name=str(path), label_kind=columns.label_kind)


def suggest_column(name: str, header: Sequence[str]) -> str:
    """The header's nearest name, as a hint."""
    from difflib import get_close_matches

    near = get_close_matches(name, header, n=1, cutoff=0.5)
    found = f"columns are: {', '.join(header)}"
    if len(header) == 1 and ";" in header[0]:
        return f"{found}; fields are parted by commas, not by semicolons (or tabs, in .tsv)"
    return f"did you mean {near[0]!r}? {found}" if near else f"{found}; name another (--text-column, --label-column)"


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
        return _read_parquet(path)
    text = _decode(path)
    if kind == "conll":
        return read_conll(path, text)
    if kind == "squad":
        return read_squad(path, text)
    header, records = (
        _read_jsonl(path, text) if kind == "jsonl" else _read_csv(path, text, kind == "tsv", columns.named)
    )
    if not records:
        raise DataError(f"{path} has a header but no rows" if header else f"{path} is empty")
    return header, records


def _pieces(path: Path) -> tuple[str, ...]:
    """A plain text in pieces that put together are the text; for language modeling, where white space counts."""
    pieces: list[str] = []
    for line in _decode(path).splitlines(keepends=True):
        if pieces and len(pieces[-1]) < PIECE:
            pieces[-1] += line
        else:
            pieces.append(line)
    if not "".join(pieces).strip():
        raise DataError(f"{path} is empty")
    return tuple(pieces)


def _lines(path: Path, read: Callable[[object], str | None]) -> tuple[str, ...]:
    if kept := tuple(text for line in _decode(path).split("\n") if (text := read(line))):
        return kept
    raise DataError(f"{path} is empty")


def _decode(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path} is not UTF-8: byte 0x{data[error.start]:02x} in line {line}",
            hint="convert it, for example: iconv -f windows-1252 -t utf-8 FILE",
        ) from None


def _read_csv(path: Path, text: str, tabs: bool, named: Sequence[str]) -> tuple[list[str], list[Row]]:
    reader = csv.reader(io.StringIO(text), delimiter="\t" if tabs else ",", strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}", hint="a quote that is never closed?") from None
    header = [name.strip() for name in rows[0]] if rows else []
    if all(name.isdigit() for name in named) and not set(named) <= set(header):
        header = [str(number) for number in range(1, len(header) + 1)]
    else:
        rows = rows[1:]
    broken = [
        Problem(f"row {number}", f"{len(row)} fields where the header has {len(header)}")
        for number, row in enumerate(rows, 1)
        if row and len(row) != len(header)
    ]
    _raise_broken(path, broken)
    records: list[Row] = [dict(zip(header, row, strict=True)) for row in rows if row]
    return header, records


def _read_jsonl(path: Path, text: str) -> tuple[list[str], list[Row]]:
    records: list[Row] = []
    broken: list[Problem] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            broken.append(Problem(f"row {number}", f"not JSON: {error.msg} at column {error.colno}"))
            continue
        if isinstance(record, dict):
            records.append(record)
        else:
            broken.append(Problem(f"row {number}", f"a {type(record).__name__} where an object was expected"))
    _raise_broken(path, broken)
    return list(dict.fromkeys(name for record in records for name in record)), records


def _read_parquet(path: Path) -> tuple[list[str], list[Row]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]})") from None
    if table.num_rows == 0:
        raise DataError(f"{path} has a header but no rows")
    return list(table.column_names), table.to_pylist()


def _read_hub(name: str, split: str, *, pictures: bool) -> tuple[list[str], list[Row]]:
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", "hub") from None
    owner, _, config = name.partition(":")
    try:
        data = datasets.load_dataset(owner, config or None, split=split)
    except (OSError, ValueError) as error:  # datasets' own errors are subclasses of these two
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"hub data set {name!r}, split {split!r}: {reason}") from None
    for column in [c for c, f in data.features.items() if pictures and isinstance(f, datasets.Image)]:
        data = data.cast_column(column, datasets.Image(decode=False))  # files as they are: {"bytes", "path"}
    names = {c: f.names for c, f in data.features.items() if isinstance(f, datasets.ClassLabel)}
    records: list[Row] = [{c: names[c][v] if c in names and v >= 0 else v for c, v in r.items()} for r in data]
    return list(data.column_names), records


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


def _to_table(source: str, records: Iterable[Row], columns: Columns) -> Table:
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
                kinds = {"answers": "no answers", "score": "empty or not a number"}
                what = kinds.get(columns.label_kind, "") if into is labels else ""
                broken.append(Problem(f"row {number}", f"column {name!r} is {what or 'empty or not a text'}"))
            else:
                into.append(value)
    _raise_broken(source, broken)
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
        return _words(value)
    if columns.label_kind == "score" and name == columns.label:
        return _score(value)
    if columns.label_kind == "answers" and name != columns.text:
        context = record.get(columns.pair)  # as it stands: answers are found by their place in it
        if not isinstance(context, str) or not context.strip():
            return None
        return context if name == columns.pair else answers_label(value, context)
    return _cell(value)


def _score(value: object) -> str | None:
    """A finite number, or a text that is one, as a text; None for others."""
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except ValueError:
        return None
    return str(number) if math.isfinite(number) else None


def _words(value: object) -> str | None:
    """Words with one space between: of a list of texts (a space inside of one becomes a no-break space) or numbers, or
    of a text. None for others, also for an empty word."""
    if isinstance(value, str):
        return SPACE.sub(" ", value).strip() or None
    if not isinstance(value, list) or not value or not all(isinstance(word, str | int) for word in value):
        return None
    words = [SPACE.sub("\u00a0", str(word)) for word in value]
    return " ".join(words) if all(words) else None


def _cell(value: object) -> str | None:
    """A text, or a number, boolean or conversation (a list of messages: as JSON) written as one; None for others."""
    if isinstance(value, str):
        return value.strip() or None
    if (
        isinstance(value, list)
        and value
        and all(isinstance(m, dict) and {"role", "content"} <= m.keys() for m in value)
    ):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return None


def _raise_broken(where: Path | str, broken: Sequence[Problem]) -> None:
    if not broken:
        return
    more = f", {len(broken) - MAX_PROBLEMS} more not shown" if len(broken) > MAX_PROBLEMS else ""
    kind: Literal["row", "rows"] = "row" if len(broken) == 1 else "rows"
    raise DataError(f"{where}: {len(broken)} broken {kind}{more}", problems=tuple(broken[:MAX_PROBLEMS]))
