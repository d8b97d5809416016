"""csv and tsv files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from edgekit.data.rows import Row, raise_broken
from edgekit.errors import DataError, Problem

__all__ = ["read_delimited"]


def read_delimited(path: Path, text: str, tabs: bool, named: Sequence[str]) -> tuple[list[str], list[Row]]:
    """The columns and the rows of a csv file, or with `tabs` a tsv file. Where all of `named` are numbers that are no
    columns, the file has no header. Raises DataError for rows that have not as many fields as the header."""
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
    raise_broken(path, broken)
    records: list[Row] = [dict(zip(header, row, strict=True)) for row in rows if row]
    return header, records
