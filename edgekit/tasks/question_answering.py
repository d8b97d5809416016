"""Extractive question answering: a question and its context in, the answer cut out of the context.

A unit is a question, its rows are windows of its context. All of them are one choice of a first and of a last token
(Clark and Gardner 2018, arXiv 1710.10723, call it a shared norm), so that windows can be laid side by side.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.artifact import Task
from edgekit.data.table import Table
from edgekit.errors import DataError
from edgekit.model_config import SPAN, padding_of
from edgekit.tasks.base import EncoderTask, Judged, Tokens
from edgekit.tasks.losses import UNLABELED, hard_loss, soft_loss
from edgekit.tasks.span_metrics import span_scores
from edgekit.tasks.spans import Window, best_span, cut_windows, token_span
from edgekit.tokenizer_files import open_tokenizer

if TYPE_CHECKING:
    import torch

__all__ = ["QUESTION_ANSWERING", "Questions", "make_questions"]

NOWHERE = -1e4  # logit of a character where no token begins, or ends: its share is 0


@dataclass(frozen=True)
class Questions:
    """See `Examples`; a unit is a question, a row one of its `windows`, a place a token. Answers are logits (characters
    of all contexts, 2): of a token that begins there, of one that ends with it, the greatest over the windows."""

    windows: list[list[Window]]
    encoded: Tokens
    contexts: tuple[str, ...]
    table: Table
    task: Task

    @property
    def places(self) -> int:
        return sum(self.lengths)

    @property
    def lengths(self) -> list[int]:
        return [sum(len(window.ids) for window in windows) for windows in self.windows]

    @property
    def classes(self) -> NDArray[np.int64]:
        return np.zeros(0, dtype=np.int64)

    @cached_property
    def right(self) -> list[list[tuple[str, int]]]:
        """Each question's answers: the text and where it begins; none without labels."""
        labels = self.table.labels or ("",) * len(self.table)
        return [[(text, start) for text, start in json.loads(label or "[]")] for label in labels]

    @cached_property
    def targets(self) -> NDArray[np.int64]:
        """(2, questions): the first character of the answer's first token, the last of its last; UNLABELED for one
        without an answer that stands in its context. Of several answers the first."""
        found = np.full((2, len(self.windows)), UNLABELED, dtype=np.int64)
        for unit, (windows, answers) in enumerate(zip(self.windows, self.right, strict=True)):
            standing = [(start, start + len(text)) for text, start in answers if start >= 0]
            begins, lasts = (np.unique(np.concatenate(ends)) for ends in _ends(windows))
            span = token_span(begins, lasts, *standing[0]) if standing else None
            found[:, unit] = span or UNLABELED
        return found

    def fed(self, units: Sequence[int]) -> list[int]:
        return [row for unit in units for row in range(self._rows[unit], self._rows[unit + 1])]

    def loss(
        self,
        output: torch.Tensor,
        units: Sequence[int],
        *,
        weights: torch.Tensor | None = None,
        smoothing: float = 0.0,
        own: bool = False,
        summed: bool = False,
    ) -> torch.Tensor:
        import torch

        logits = self._choices(output, units)
        wanted = torch.from_numpy(self.targets[:, list(units)].ravel()).to(output.device)
        labels = logits.argmax(-1) if own else wanted
        hard = hard_loss(logits, labels, summed=summed)
        if not smoothing:
            return hard
        there = logits > NOWHERE / 2
        evenly = -(logits.log_softmax(-1) * there).sum(-1) / there.sum(-1).clamp_min(1)
        counted = evenly[labels != UNLABELED]
        return (1 - smoothing) * hard + smoothing * (counted.sum() / (1 if summed else max(1, len(counted))))

    def follow(
        self, output: torch.Tensor, units: Sequence[int], told: NDArray[np.float32], temperature: float
    ) -> torch.Tensor:
        import torch

        logits = self._choices(output, units)
        answers = np.full((2, len(units), logits.shape[1]), np.nan, dtype=np.float32)
        for at, unit in enumerate(units):
            own = told[self._begins[unit] : self._begins[unit + 1]]
            answers[:, at, : len(own)] = own.T
        teacher = torch.from_numpy(answers.reshape(-1, logits.shape[1])).to(output.device)
        known = ~teacher.isnan() & (logits > NOWHERE / 2)  # where both have a token
        asked = known.any(-1)
        if not bool(asked.any()):
            return output.sum() * 0.0
        ours, theirs = (values.where(known, NOWHERE)[asked] for values in (logits, teacher))
        return soft_loss(ours, theirs, temperature)

    def read(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """(characters of all contexts, 2); NaN where no token begins, or ends."""
        found = np.full((2, int(self._begins[-1])), np.nan, dtype=np.float32)
        rows = np.cumsum([0, *self.encoded.lengths])
        for unit, windows in enumerate(self.windows):
            places = np.concatenate([rows[self._rows[unit] + n] + window.columns for n, window in enumerate(windows)])
            for side, ends in enumerate(_ends(windows)):
                greatest = np.full(len(self.contexts[unit]), -np.inf, dtype=np.float32)
                characters = np.concatenate(ends)
                np.maximum.at(greatest, characters, logits[places, side])
                found[side, self._begins[unit] + characters] = greatest[characters]
        return np.ascontiguousarray(found.T)

    def judge(self, answers: NDArray[np.float32]) -> Judged:
        spans = [best_span(scores, self.task.longest_answer) for scores in self._each(answers)]
        texts = [context[begin:end] for context, (begin, end) in zip(self.contexts, spans, strict=True)]
        if self.table.labels is None:
            return Judged(np.asarray(texts), None, {})
        right = [[text for text, _ in told] for told in self.right]
        found = zip(self.table.texts, right, texts, strict=True)
        evidence = np.asarray([span_scores(*each) for each in found], dtype=np.float64)
        f1, exact = evidence.mean(axis=0).tolist()
        first = np.asarray([told[0] if told else "" for told in right])
        return Judged(np.asarray(texts), first, {"answer_f1": f1, "exact_match": exact}, evidence)

    def mean_loss(self, answers: NDArray[np.float32]) -> float:
        losses = []
        for scores, target in zip(self._each(answers), self.targets.T, strict=True):
            for values, place in zip(scores.T.astype(np.float64), target, strict=True):
                if place != UNLABELED:
                    asked = values[~np.isnan(values)]
                    top = asked.max(initial=-np.inf)
                    losses.append(top + np.log(np.exp(asked - top).sum()) - values[place])
        return float(np.mean(losses)) if losses else 0.0

    @cached_property
    def _rows(self) -> NDArray[np.int64]:
        """The number of each question's first row, and of all rows."""
        return np.cumsum([0, *map(len, self.windows)], dtype=np.int64)

    @cached_property
    def _begins(self) -> NDArray[np.int64]:
        """The number of each context's first character, and of all characters."""
        return np.cumsum([0, *map(len, self.contexts)], dtype=np.int64)

    def _each(self, answers: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return [answers[begin:end] for begin, end in pairwise(self._begins.tolist())]

    def _choices(self, output: torch.Tensor, units: Sequence[int]) -> torch.Tensor:
        """The choices of a first character, then of a last one, (2 * questions, characters), of `output` (rows, length,
        2): the greatest logit of the windows, NOWHERE where no token begins, or ends."""
        import torch

        width, windows = max(len(self.contexts[unit]) for unit in units), [self.windows[unit] for unit in units]
        rows = [window for own in windows for window in own]
        places = np.concatenate([row * output.shape[1] + window.columns for row, window in enumerate(rows)])
        characters = np.stack(
            [
                np.concatenate([at * width + np.concatenate(_ends(own)[side]) for at, own in enumerate(windows)])
                for side in (0, 1)
            ]
        )
        values = output.float().flatten(0, 1)[torch.from_numpy(places).to(output.device)].T
        found = torch.full((2, len(units) * width), NOWHERE, device=output.device)
        found = found.scatter_reduce(1, torch.from_numpy(characters).to(output.device), values, "amax")
        return found.view(2 * len(units), width)


def _ends(windows: list[Window]) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    return [window.begins for window in windows], [window.lasts for window in windows]


def make_questions(folder: Path, table: Table, task: Task) -> Questions:
    """Tokenize with the artifact's own `tokenizer.json`, and cut into windows of `task.max_length` tokens.

    Raises DataError for a table without contexts, and where a window has no room.
    """
    if table.pairs is None:
        raise DataError(f"{table.name} has no contexts", hint="name their column")
    encodings = open_tokenizer(folder).encode_batch(list(zip(table.texts, table.pairs, strict=True)))
    windows = [
        cut_windows(encoding, context, task.max_length, task.overlap)
        for encoding, context in zip(encodings, table.pairs, strict=True)
    ]
    rows = [window for own in windows for window in own]
    types = [row.types for row in rows] if task.segments else None
    return Questions(windows, Tokens([row.ids for row in rows], types, padding_of(folder)), table.pairs, table, task)


def mean_f1(evidence: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean F1 of samples, (samples,); `evidence` (questions, 2) begins with it; `counts`: see `EncoderTask`."""
    return np.asarray(counts @ evidence[:, 0] / counts.sum(axis=1), dtype=np.float64)


QUESTION_ANSWERING = EncoderTask(
    "question-answering",
    ("answer_f1", "exact_match"),
    lambda _: SPAN,
    make_questions,
    "answers",
    mean_f1,
    cuts=True,
)
