"""jsonl files: an object a line."""

from __future__ import annotations

import json
import re
from pathlib import Path

from edgekit.data.rows import Row, raise_broken
from edgekit.errors import Problem

__all__ = ["read_jsonl"]

LINE_END = re.compile(r"\r\n|[\n\r\v\f\x1c-\x1e]")  # none stands inside of JSON's texts, as Unicode's others may


def read_jsonl(path: Path, text: str) -> tuple[list[str], list[Row]]:
    """The columns of all rows, and the rows. Raises DataError for lines that are no object."""
    records: list[Row] = []
    broken: list[Problem] = []
    for number, line in enumerate(LINE_END.split(text), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            broken.append(Problem(f"row {number}", f"not JSON: {error.msg} at column {error.colno}"))
            continue
        except ValueError as error:  # an integer of more digits than Python reads
            broken.append(Problem(f"row {number}", f"not JSON: {error}"))
            continue
        if isinstance(record, dict):
            records.append(record)
        else:
            broken.append(Problem(f"row {number}", f"a {type(record).__name__} where an object was expected"))
    raise_broken(path, broken)
    return list(dict.fromkeys(name for record in records for name in record)), records
