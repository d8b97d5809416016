"""Pictures as rows: a folder with one sub-folder for each label, or a column of files or of encoded pictures.

In a `Table` a picture is the sha256 of its file; `Table.pictures` says where that file is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from edgekit.data.table import Table
from edgekit.errors import DataError, Problem
from edgekit.pictures import pixels

__all__ = ["encoded_picture", "find_pictures", "of_pictures", "read_folder"]


def read_folder(root: Path, text: str, label: str) -> tuple[list[str], list[Mapping[str, object]]]:
    """A record for each file below `root`, sorted by path, in the columns `text` and, where it is named, `label`: the
    sub-folder of `root` that it lies in. Names that begin with a dot are passed over.

    Raises DataError for a folder without files, or a file beside the labels' folders.
    """
    found = [path.relative_to(root) for path in sorted(root.rglob("*")) if path.is_file()]
    files = [path for path in found if not any(part.startswith(".") for part in path.parts)]
    if not files:
        raise DataError(f"{root}: a folder without files")
    loose = [path for path in files if len(path.parts) == 1]
    if label and loose:
        hint = "a label's pictures lie in a sub-folder of its name: train/LABEL/1.png"
        raise DataError(f"{root}: {len(loose)} file(s) without a label, the first is {loose[0]}", hint=hint)
    if not label:
        return [text], [{text: str(path)} for path in files]
    return [text, label], [{text: str(path), label: path.parts[0]} for path in files]


def find_pictures(
    records: Sequence[Mapping[str, object]], column: str, base: Path
) -> tuple[list[Mapping[str, object]], dict[str, Path | bytes], list[Problem]]:
    """The records with the picture's sha256 in `column`; where each picture is; and the rows, from 1, without one."""
    found: list[Mapping[str, object]] = []
    pictures: dict[str, Path | bytes] = {}
    broken: list[Problem] = []
    for number, record in enumerate(records, 1):
        try:
            digest, where = _read_picture(record.get(column), base)
        except ValueError as error:
            broken.append(Problem(f"row {number}", f"column {column!r} {error}"))
            continue
        pictures[digest] = where
        found.append({**record, column: digest})
    return found, pictures, broken


def _read_picture(value: object, base: Path) -> tuple[str, Path | bytes]:
    """The sha256 of a picture's file, and where that is: a path (relative ones from `base`), or the bytes in {"bytes",
    "path"}, as the hub's parquet files have them. Raises ValueError that says what is wrong."""
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        data, where = value["bytes"], value["bytes"]
    else:
        name = value.get("path") if isinstance(value, dict) else value
        if not isinstance(name, str) or not name.strip():
            raise ValueError("is empty, or neither a path nor a picture's bytes")
        where = base / name.strip()
        try:
            data = where.read_bytes()
        except OSError as error:
            raise ValueError(f"names {where}, which cannot be read ({error.strerror})") from None
    try:
        pixels().sound(data)
    except ValueError as error:
        raise ValueError(f"is {error}" if isinstance(where, bytes) else f"names {where}: {error}") from None
    return sha256(data).hexdigest(), where


def encoded_picture(table: Table, row: int) -> bytes:
    """The row's picture file. Raises DataError where it is gone, or another by now."""
    digest = table.texts[row]
    where = table.pictures[digest]
    if isinstance(where, bytes):
        return where
    try:
        data = where.read_bytes()
    except OSError as error:
        raise DataError(f"{table.name}: {where} cannot be read any more ({error.strerror})") from None
    if sha256(data).hexdigest() != digest:
        raise DataError(f"{table.name}: {where} was changed while it was used")
    return data


def of_pictures(files: list[bytes], name: str = "data") -> Table:
    """A table of encoded pictures, without labels."""
    found = {sha256(data).hexdigest(): data for data in files}
    return Table(tuple(sha256(data).hexdigest() for data in files), name=name, pictures=found)
