"""Digests: canonical JSON and files, always full sha256 (12 characters are for the screen)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import JsonValue

__all__ = ["SHORT", "canonical_json", "digest_file", "digest_files", "digest_json", "list_files"]

SHORT = 12  # characters of a digest shown on screen


def canonical_json(value: JsonValue) -> str:
    """JSON with sorted keys, no spaces and no NaN, so that equal values give equal text.

    Raises ValueError for NaN or infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest_json(value: JsonValue) -> str:
    """sha256 (hex) of `canonical_json(value)`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """sha256 (hex) of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_files(folder: Path) -> list[Path]:
    """All files below `folder`, sorted by their relative POSIX path."""
    return sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.relative_to(folder).as_posix())


def digest_files(folder: Path) -> dict[str, str]:
    """Relative POSIX path -> sha256 of every file below `folder`; names count, not only contents."""
    return {p.relative_to(folder).as_posix(): digest_file(p) for p in list_files(folder)}
