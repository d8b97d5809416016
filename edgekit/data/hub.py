"""Data sets of the Hugging Face hub."""

from __future__ import annotations

from edgekit.data.rows import Row
from edgekit.errors import DataError, MissingExtraError

__all__ = ["read_hub"]


def read_hub(name: str, split: str, *, pictures: bool) -> tuple[list[str], list[Row]]:
    """The columns and the rows of `OWNER/NAME[:CONFIG]`, labels by their names. `pictures`: as their files' bytes.
    Raises DataError for a data set or a split that cannot be loaded."""
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
