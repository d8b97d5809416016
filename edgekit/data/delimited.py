"""csv and tsv files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from edgekit.data.rows import Row, raise_broken
from edgekit.errors import DataError, Problem

__all__ = ["read_delimited"]

Parted = tuple[list[str], list[list[str]]]  # the header, and the rows
LONGEST = 2**31 - 1  # characters of a field; Python's own limit is 131,072


def read_delimited(path: Path, text: str, tabs: bool, named: Sequence[str]) -> tuple[list[str], list[Row]]:
    """The columns and the rows of a csv file, or with `tabs` a tsv file. Where all of `named` are numbers that are no
    columns, the file has no header.

    Fields may stand in double quotes. The quotes of a tsv file are of its texts, as in many public sets (GLUE's), where
    it is valid without them alone, or where they would make one field of several, or of several lines, that are as
    valid apart. Raises DataError for a quote that is never closed, and for rows that have not as many fields as the
    header.
    """
    if tabs and '"' in text:
        header, rows = _with_or_without_quotes(path, text, named)
    else:
        header, rows = _parted(path, text, tabs, named)
    return header, [dict(zip(header, row, strict=True)) for row in rows if row]


def _with_or_without_quotes(path: Path, text: str, named: Sequence[str]) -> Parted:
    try:
        bare: Parted | DataError = _parted(path, text, True, named, quotes=False)
    except DataError as error:
        bare = error
    try:
        header, rows = _parted(path, text, True, named)
    except DataError as error:
        if isinstance(bare, DataError):
            hint = f"{error.hint} read without quotes: {bare.problems[0] if bare.problems else bare.what}".strip()
            raise DataError(error.what, hint=hint, problems=error.problems) from None
        return bare
    joined = any(mark in field for row in [header, *rows] for field in row for mark in "\t\n")
    return bare if joined and not isinstance(bare, DataError) else (header, rows)


def _parted(path: Path, text: str, tabs: bool, named: Sequence[str], *, quotes: bool = True) -> Parted:
    """The header and the rows below it, an empty list for a blank line."""
    part = "\t" if tabs else ","
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    reader = csv.reader(io.StringIO(text), delimiter=part, quoting=quoting, strict=True)
    try:
        with _long_fields():
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
    raise_broken(path, broken)
    return header, rows


@contextmanager
def _long_fields() -> Iterator[None]:
    """Fields of any length while it is open; csv has one limit for the whole process."""
    before = csv.field_size_limit(LONGEST)
    try:
        yield
    finally:
        csv.field_size_limit(before)
