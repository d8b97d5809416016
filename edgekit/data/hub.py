"""Data sets of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence

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
    except (OSError, ValueError, RuntimeError) as error:  # datasets' own errors are subclasses of these
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"hub data set {name!r}, split {split!r}: {reason}") from None
    for column in [c for c, f in data.features.items() if pictures and isinstance(f, datasets.Image)]:
        data = data.cast_column(column, datasets.Image(decode=False))  # files as they are: {"bytes", "path"}
    inner = {c: getattr(f, "feature", f) for c, f in data.features.items()}  # of a list, what its items are
    names = {c: f.names for c, f in inner.items() if isinstance(f, datasets.ClassLabel)}
    records: list[Row] = [{c: _named(v, names[c]) if c in names else v for c, v in r.items()} for r in data]
    return list(data.column_names), records


def _named(value: object, names: Sequence[str]) -> object:
    """A label's name, or the names of a list of them; below 0 there is none."""
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    return names[value] if isinstance(value, int) and value >= 0 else value
