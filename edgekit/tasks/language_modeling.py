"""Language modeling: texts in, windows of token ids out, and what a model's probabilities are worth on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.artifact import Task
from edgekit.data.table import Table
from edgekit.errors import DataError
from edgekit.tokenizer_files import open_tokenizer

if TYPE_CHECKING:
    import torch

__all__ = ["Windows", "make_windows", "targets_of", "token_stream"]


@dataclass(frozen=True)
class Windows:
    """`ids` (windows, length) int32: consecutive pieces of the texts. The tokens from `scored_from` on count: those
    before them are context only, so that every scored token has seen at least that many."""

    ids: NDArray[np.int32]
    scored_from: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def scored(self) -> int:
        """Tokens that count, over all windows."""
        return int(self.ids.shape[0] * (self.ids.shape[1] - self.scored_from))

    def batches(self, size: int) -> list[torch.Tensor]:
        """Token ids (size, length) int64; the last batch may be smaller."""
        import torch

        return [torch.from_numpy(self.ids[at : at + size]).long() for at in range(0, len(self), size)]

    def head(self, count: int) -> Windows:
        """About `count` windows, evenly spaced."""
        step = max(1, len(self) // count)
        return Windows(self.ids[: step * count : step], self.scored_from)


def token_stream(folder: Path, table: Table) -> NDArray[np.int32]:
    """Token ids (tokens,) of all texts, one after the other, by the folder's `tokenizer.json`, with the special tokens
    that it adds around each text."""
    tokenizer = open_tokenizer(folder)
    return np.asarray([i for e in tokenizer.encode_batch(list(table.texts)) for i in e.ids], dtype=np.int32)


def make_windows(folder: Path, table: Table, task: Task, *, most: int = 0) -> Windows:
    """Cut the texts into windows of `task.max_length` tokens of which the second half counts, as llama.cpp's perplexity
    does. `most` > 0: at most so many, evenly spaced. What does not fill a window is left out.

    Raises DataError where the texts do not fill one window.
    """
    stream = token_stream(folder, table)
    length = task.max_length
    count = len(stream) // length
    if count == 0:
        what = f"{table.name}: {len(stream)} tokens do not fill one window of {length}"
        raise DataError(what, hint="give more text, or a smaller --max-length")
    windows = Windows(stream[: count * length].reshape(count, length), length // 2)
    return windows.head(most) if 0 < most < count else windows


def targets_of(windows: Windows) -> NDArray[np.int64]:
    """The tokens that count, (scored,): what a model is to predict at each scored position."""
    return np.asarray(windows.ids[:, windows.scored_from :], dtype=np.int64).ravel()
