"""Rows of tokens that a language model is trained on: documents joined, packed side by side, or one a row."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.tasks.chat import Document

if TYPE_CHECKING:
    import torch

__all__ = ["IGNORED", "Packing", "Rows", "joined", "one_a_row", "packed", "pieces", "stream"]

Packing = Literal["auto", "stream", "documents", "off"]
IGNORED = -100  # the label of a token that does not count; torch's own ignore_index


@dataclass(frozen=True)
class Rows:
    """`ids[i]` (length,) int32; `labels[i]` the same, IGNORED where a token is not to be predicted; `starts[i]`: where
    its documents begin. Tokens see those before them in their own document only."""

    ids: tuple[NDArray[np.int32], ...]
    labels: tuple[NDArray[np.int32], ...]
    starts: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(ids) for ids in self.ids]

    @cached_property
    def weights(self) -> list[int]:
        """Tokens of each row that count."""
        return [int((labels != IGNORED).sum()) for labels in self.labels]

    @cached_property
    def begins(self) -> list[int]:
        """Where each row begins, when all are written one after the other."""
        return [0, *np.cumsum(self.lengths).tolist()[:-1]]

    @cached_property
    def digest(self) -> str:
        """sha256 of it all."""
        sha = hashlib.sha256()
        for ids, labels, starts in zip(self.ids, self.labels, self.starts, strict=True):
            sha.update(ids.tobytes() + labels.tobytes() + repr((len(ids), starts)).encode())
        return sha.hexdigest()

    def batch(self, rows: Sequence[int], device: str = "cpu") -> dict[str, torch.Tensor]:
        """`input_ids` and `labels` (rows, longest), padded at the end, where causal attention never looks.

        Of packed rows also `position_ids`, which begin anew with each document (and with the padding): Transformers
        makes the block-diagonal mask of them, whatever the model's attention is.
        """
        import torch

        longest = max(len(self.ids[row]) for row in rows)
        ids = np.zeros((len(rows), longest), dtype=np.int64)
        labels = np.full((len(rows), longest), IGNORED, dtype=np.int64)
        positions = np.tile(np.arange(longest), (len(rows), 1))
        for place, row in enumerate(rows):
            length = len(self.ids[row])
            ids[place, :length], labels[place, :length] = self.ids[row], self.labels[row]
            for start in (*self.starts[row], length):
                positions[place, start:] = np.arange(longest - start)
        batch = {"input_ids": ids, "labels": labels}
        if any(len(self.starts[row]) > 1 for row in rows):
            batch["position_ids"] = positions
        return {name: torch.from_numpy(array).to(device) for name, array in batch.items()}

    def batches(self, size: int) -> list[list[int]]:
        """All rows in batches of like length."""
        order = sorted(range(len(self)), key=lambda row: len(self.ids[row]))
        return [order[start : start + size] for start in range(0, len(order), size)]


def joined(parts: Sequence[Rows]) -> Rows:
    """All rows of all parts."""
    return Rows(
        tuple(ids for part in parts for ids in part.ids),
        tuple(labels for part in parts for labels in part.labels),
        tuple(starts for part in parts for starts in part.starts),
    )


def one_a_row(documents: Sequence[Document]) -> Rows:
    """Each document is a row."""
    return _rows([[document] for document in documents])


def stream(documents: Sequence[Document], length: int) -> Rows:
    """All documents one after the other, cut into rows of `length` tokens: a row's tokens see all before them in it."""
    ids = np.concatenate([document.ids for document in documents])
    counted = np.concatenate([document.counted for document in documents])
    return one_a_row(pieces([Document(ids, counted)], length))


def packed(documents: Sequence[Document], length: int) -> Rows:
    """Documents of at most `length` tokens side by side, the longest first, each where it leaves the least space."""
    rows: list[list[Document]] = []
    room: list[tuple[int, int]] = []  # (tokens left, row), sorted
    for document in sorted(documents, key=len, reverse=True):
        place = bisect_left(room, (len(document), 0))
        left, row = room.pop(place) if place < len(room) else (length, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(document)
        insort(room, (left - len(document), row))
    return _rows(rows)


def pieces(documents: Sequence[Document], length: int) -> list[Document]:
    """The documents, longer ones cut into pieces of `length` tokens."""
    return [
        Document(document.ids[start : start + length], document.counted[start : start + length])
        for document in documents
        for start in range(0, len(document), length)
    ]


def _rows(groups: Sequence[Sequence[Document]]) -> Rows:
    """Rows of these documents. What nothing stands before is not predicted; rows where nothing counts are left out."""
    ids, labels, starts = [], [], []
    for group in groups:
        row = np.concatenate([document.ids for document in group])
        counted = np.concatenate([document.counted for document in group])
        begins = np.cumsum([0, *(len(document) for document in group[:-1])])
        counted[begins] = False
        if counted.any():
            ids.append(row)
            labels.append(np.where(counted, row, IGNORED).astype(np.int32))
            starts.append(tuple(begins.tolist()))
    return Rows(tuple(ids), tuple(labels), tuple(starts))
