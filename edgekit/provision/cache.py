"""Where prepared targets are kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekit.errors import DeviceError

__all__ = ["cache_root", "locked"]


def cache_root() -> Path:
    """$EDGEKIT_CACHE, else `edgekit/targets` in the user's cache folder ($XDG_CACHE_HOME, else ~/.cache)."""
    if own := os.environ.get("EDGEKIT_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekit" / "targets"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder`, which is made; another process that asks for it waits.

    Raises DeviceError where it cannot be written, then or in the block.
    """
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            yield
    except OSError as error:
        what = f"{folder} cannot be written: {error.strerror or error}"
        raise DeviceError(what, hint="EDGEKIT_CACHE names another folder") from None
