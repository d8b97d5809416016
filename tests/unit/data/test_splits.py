from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.data.load import Columns
from edgekit.data.splits import load_splits
from edgekit.errors import DataError


def write(path: Path, rows: int) -> str:
    path.write_text("text\n" + "".join(f"text {i}\n" for i in range(rows)), encoding="utf-8")
    return str(path)


def test_rows_are_held_out_where_there_are_enough(tmp_path: Path) -> None:
    splits = load_splits({"train": write(tmp_path / "a.csv", 30)}, Columns())
    assert (len(splits.tables["train"]), len(splits.tables["validation"])) == (27, 3)
    assert "3 rows (10% of each label) are held out" in splits.notes[0]


def test_too_few_rows_are_refused_only_where_something_has_to_be_validated(tmp_path: Path) -> None:
    sources = {"train": write(tmp_path / "a.csv", 9)}
    with pytest.raises(DataError, match="too few rows to hold any out"):
        load_splits(sources, Columns())
    splits = load_splits(sources, Columns(), must_validate=False)
    assert (len(splits.tables["train"]), splits.tables.keys(), splits.notes) == (9, {"train"}, ())
