"""parquet files."""

from __future__ import annotations

from pathlib import Path

from edgekit.data.rows import Row
from edgekit.errors import DataError

__all__ = ["read_parquet"]


def read_parquet(path: Path) -> tuple[list[str], list[Row]]:
    """The columns and the rows. Raises DataError for a file that cannot be read, or has no rows."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]})") from None
    if table.num_rows == 0:
        raise DataError(f"{path} has a header but no rows")
    return list(table.column_names), table.to_pylist()
