"""What one value of a row says: a text, words, or a score; None for what cannot be one."""

from __future__ import annotations

import json
import math
import re

__all__ = ["cell", "score", "words"]

SPACE = re.compile(r"[ \t\r\n]+")  # not all of Unicode's: some words are nothing else


def score(value: object) -> str | None:
    """A finite number, or a text that is one, as a text; None for others."""
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        return None
    return str(number) if math.isfinite(number) else None


def words(value: object) -> str | None:
    """Words with one space between: of a list of texts (a space inside of one becomes a no-break space) or numbers, or
    of a text. None for others, also for an empty word."""
    if isinstance(value, str):
        return SPACE.sub(" ", value).strip() or None
    if not isinstance(value, list) or not value or not all(isinstance(word, str | int) for word in value):
        return None
    found = [SPACE.sub("\u00a0", str(word)) for word in value]
    return " ".join(found) if all(found) else None


def cell(value: object) -> str | None:
    """A text, or a number, boolean or conversation (a list of messages: as JSON) written as one; None for others."""
    if isinstance(value, str):
        return value.strip() or None
    if (
        isinstance(value, list)
        and value
        and all(isinstance(m, dict) and {"role", "content"} <= m.keys() for m in value)
    ):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return None
