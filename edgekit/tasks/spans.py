"""A question and a context too long for one input: overlapping windows of it, and the best span over all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Encoding

__all__ = ["Window", "best_span", "cut_windows", "token_span"]


@dataclass(frozen=True)
class Window:
    """A row of tokens: the question, and a part of the context. `columns`: its tokens that hold text of the context;
    `begins` and `lasts`: the first and the last character of each, white space left out, counted in the context."""

    ids: list[int]
    types: list[int]
    columns: NDArray[np.int64]
    begins: NDArray[np.int64]
    lasts: NDArray[np.int64]


def cut_windows(encoding: Encoding, context: str, max_length: int, overlap: int) -> list[Window]:
    """All of the context's tokens in windows of at most `max_length` tokens, neighbours sharing `overlap` of them.

    `encoding`: of the pair (question, context), not truncated. The question takes at most half of a window's room and
    the overlap half of what is left; what is longer is cut. Raises DataError where there is no room at all.
    """
    kinds = encoding.sequence_ids
    asked, told = ([place for place, kind in enumerate(kinds) if kind == text] for text in (0, 1))
    room = max_length - (len(kinds) - len(asked) - len(told))
    if room < 2:
        raise DataError(f"max_length {max_length} leaves no room for a question and its context", hint="raise it")
    dropped = set(asked[room // 2 :])
    first, end = (told[0], told[-1] + 1) if told else (len(kinds), len(kinds))
    head, tail = [place for place in range(first) if place not in dropped], list(range(end, len(kinds)))
    room -= len(asked) - len(dropped)
    shared = min(overlap, room // 2)
    starts = range(first, max(first + 1, end - shared), room - shared)
    return [_window(encoding, context, head, range(at, min(at + room, end)), tail) for at in starts]


def _window(encoding: Encoding, context: str, head: list[int], part: range, tail: list[int]) -> Window:
    chosen = [*head, *part, *tail]
    columns, begins, lasts = [], [], []
    for column, place in enumerate(part, len(head)):
        begin, end = encoding.offsets[place]
        piece = context[begin:end]
        if piece.strip():
            columns.append(column)
            begins.append(end - len(piece.lstrip()))
            lasts.append(begin + len(piece.rstrip()) - 1)
    arrays = (np.asarray(values, dtype=np.int64) for values in (columns, begins, lasts))
    ids, types = encoding.ids, encoding.type_ids
    return Window([ids[place] for place in chosen], [types[place] for place in chosen], *arrays)


def best_span(scores: NDArray[np.float32], longest: int) -> tuple[int, int]:
    """First character and end of the span whose two scores have the greatest sum, at most `longest` tokens long.

    `scores` (characters, 2): of a token that begins there, of one that ends with it; NaN where none does. (0, 0) where
    there is no span.
    """
    begins, lasts = (np.flatnonzero(~np.isnan(scores[:, side])) for side in (0, 1))
    if not len(begins) or not len(lasts):
        return 0, 0
    ends = np.searchsorted(lasts, begins)[:, None] + np.arange(longest)
    within = ends < len(lasts)
    ends = np.minimum(ends, len(lasts) - 1)
    sums = np.where(within, scores[begins, 0][:, None] + scores[lasts, 1][ends], -np.inf)
    begin, nth = np.unravel_index(int(sums.argmax()), sums.shape)
    if not within[begin, nth]:
        return 0, 0
    return int(begins[begin]), int(lasts[ends[begin, nth]]) + 1


def token_span(begins: NDArray[np.int64], lasts: NDArray[np.int64], start: int, end: int) -> tuple[int, int] | None:
    """The first character of the token that holds `start`, and the last one of that which holds `end` - 1 (or of the
    next); both sorted. None where there is no such token."""
    first = int(np.searchsorted(begins, start, side="right")) - 1
    last = int(np.searchsorted(lasts, end - 1))
    return (int(begins[first]), int(lasts[last])) if first >= 0 and last < len(lasts) else None
