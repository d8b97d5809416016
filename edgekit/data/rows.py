"""What readers of every format share: the record of a row, and how broken rows are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from edgekit.errors import DataError, Problem

__all__ = ["MAX_PROBLEMS", "Row", "raise_broken"]

Row = Mapping[str, object]  # a column's value by its name
MAX_PROBLEMS = 10  # rows shown at once


def raise_broken(where: Path | str, broken: Sequence[Problem], hint: str = "") -> None:
    """Raises DataError that counts the broken rows and shows the first; nothing where there are none."""
    if not broken:
        return
    more = f", {len(broken) - MAX_PROBLEMS} more not shown" if len(broken) > MAX_PROBLEMS else ""
    kind: Literal["row", "rows"] = "row" if len(broken) == 1 else "rows"
    what = f"{where}: {len(broken)} broken {kind}{more}"
    raise DataError(what, hint=hint, problems=tuple(broken[:MAX_PROBLEMS]))
