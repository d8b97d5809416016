"""Where prepared targets are kept."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_root"]


def cache_root() -> Path:
    """$EDGEKIT_CACHE, else `edgekit/targets` in the user's cache folder ($XDG_CACHE_HOME, else ~/.cache)."""
    if own := os.environ.get("EDGEKIT_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekit" / "targets"
