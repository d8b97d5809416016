"""Token classification (named entities): words in, a label a word out, read at the first token of the word.

A row's text is its words with one space between, and its label their labels likewise ("Sage Award opens", "B-event
I-event O"), so that any tokenizer cuts it as it cuts running text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.artifact import Task
from edgekit.data.table import Table
from edgekit.data.tags import bio_name
from edgekit.errors import DataError, ModelError, Problem
from edgekit.tasks.base import Encoded, EncoderTask, Judged, encoded_of, tokenize
from edgekit.tasks.entities import OUTSIDE, entity_counts, entity_f1, entity_metrics, label_order, no_outside
from edgekit.tasks.losses import UNLABELED, cross_entropy, hard_loss, soft_loss
from edgekit.tasks.text_classification import known_labels

if TYPE_CHECKING:
    import torch

__all__ = ["NO_TOKEN", "TOKEN_CLASSIFICATION", "Sentences", "first_tokens", "make_sentences", "word_labels"]

NO_TOKEN = -1  # of a word that the tokenizer drops, or that lies beyond the longest input
MAX_PROBLEMS = 10  # rows shown at once


@dataclass(frozen=True)
class Sentences:
    """See `Examples`; a unit is a sentence, a place a token. `firsts`: of each sentence's words the first token's place
    in the row, or NO_TOKEN: such a word is answered O, and counts."""

    encoded: Encoded
    firsts: list[NDArray[np.int64]]
    table: Table
    task: Task

    @property
    def places(self) -> int:
        return sum(self.lengths)

    @property
    def lengths(self) -> list[int]:
        return self.encoded.lengths

    @property
    def classes(self) -> NDArray[np.int64]:
        """Label numbers of the words that have a token, sentence by sentence."""
        found = [row[first != NO_TOKEN] for row, first in zip(self.words, self.firsts, strict=True)]
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)

    @cached_property
    def words(self) -> list[NDArray[np.int64]]:
        """Label numbers of each sentence's words; UNLABELED in a sentence without labels."""
        if self.table.labels is None:
            return [np.full(len(first), UNLABELED, dtype=np.int64) for first in self.firsts]
        rows = word_labels(self.table)
        index = known_labels(self.table, self.task, self.table.classes)
        return [
            np.asarray([index[name] for name in row] or [UNLABELED] * len(first), dtype=np.int64)
            for row, first in zip(rows, self.firsts, strict=True)
        ]

    def fed(self, units: Sequence[int]) -> list[int]:
        return list(units)

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

        logits, present = self._at_words(output, units), [self.firsts[unit] != NO_TOKEN for unit in units]
        numbers = [self.words[unit][there] for unit, there in zip(units, present, strict=True)]
        labels = logits.argmax(-1) if own else torch.from_numpy(np.concatenate(numbers)).to(output.device)
        return hard_loss(logits, labels, weights=weights, smoothing=smoothing, summed=summed)

    def follow(
        self, output: torch.Tensor, units: Sequence[int], told: NDArray[np.float32], temperature: float
    ) -> torch.Tensor:
        import torch

        present = np.concatenate([self.firsts[unit] != NO_TOKEN for unit in units])
        answers = np.concatenate([told[self._begins[unit] : self._begins[unit + 1]] for unit in units])
        known = ~np.isnan(answers).any(axis=1)
        logits = self._at_words(output, units)[torch.from_numpy(known[present]).to(output.device)]
        if not len(logits):
            return output.sum() * 0.0
        return soft_loss(logits, torch.from_numpy(answers[present & known]).to(output.device), temperature)

    def read(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """(words, labels), sentence by sentence."""
        starts = np.cumsum([0, *self.lengths[:-1]])
        found = np.full((int(self._begins[-1]), logits.shape[1]), np.nan, dtype=np.float32)
        for at, start, first in zip(self._begins, starts, self.firsts, strict=False):
            there = np.flatnonzero(first != NO_TOKEN)
            found[at + there] = logits[start + first[there]]
        return found

    def judge(self, answers: NDArray[np.float32]) -> Judged:
        lost = np.isnan(answers).any(axis=1)
        predicted = np.where(lost, self.task.labels.index(OUTSIDE), np.nan_to_num(answers).argmax(axis=1))
        predicted = in_bio(self.task.labels)[predicted]
        if self.table.labels is None:
            return Judged(predicted, None, {})
        names = np.asarray(self.task.labels)
        rows = np.split(names[predicted], self._begins[1:-1])
        truth = [names[numbers] for numbers in self.words]
        counts = [entity_counts(right.tolist(), found.tolist()) for right, found in zip(truth, rows, strict=True)]
        evidence = np.asarray(counts, dtype=np.float64)
        return Judged(predicted, np.concatenate(self.words), entity_metrics(evidence), evidence)

    def mean_loss(self, answers: NDArray[np.float32]) -> float:
        there = np.concatenate(self.firsts) != NO_TOKEN
        return cross_entropy(answers[there], np.concatenate(self.words)[there])

    @cached_property
    def _begins(self) -> NDArray[np.int64]:
        """The number of each sentence's first word, and of all words."""
        return np.cumsum([0, *(len(first) for first in self.firsts)], dtype=np.int64)

    def _at_words(self, output: torch.Tensor, units: Sequence[int]) -> torch.Tensor:
        """The logits (words, labels) of the words of `output` (batch, length, labels) that have a token."""
        import torch

        firsts = [self.firsts[unit][self.firsts[unit] != NO_TOKEN] for unit in units]
        rows = np.repeat(np.arange(len(units)), [len(first) for first in firsts])
        columns = np.concatenate(firsts)
        return output[torch.from_numpy(rows).to(output.device), torch.from_numpy(columns).to(output.device)]


def make_sentences(folder: Path, table: Table, task: Task) -> Sentences:
    """Tokenize with the artifact's own `tokenizer.json`, truncated at `task.max_length`.

    Raises DataError for rows whose words and labels are not the same number, and ModelError for labels without O.
    """
    if problem := no_outside(task.labels):
        raise ModelError(problem.what, hint=problem.hint)
    if table.labels is not None:
        word_labels(table)
    encodings = tokenize(folder, table, task)
    firsts = [
        first_tokens(text, encoding.offsets, encoding.special_tokens_mask)
        for text, encoding in zip(table.texts, encodings, strict=True)
    ]
    return Sentences(encoded_of(folder, encodings, task), firsts, table, task)


def first_tokens(text: str, offsets: Sequence[tuple[int, int]], special: Sequence[int]) -> NDArray[np.int64]:
    """Of each word of `text` the first token that holds a part of it, or NO_TOKEN; (words,).

    By the tokens' character offsets, whatever they say of the space before a word.
    """
    ends = np.cumsum([len(word) + 1 for word in text.split(" ")]) - 1
    found = np.full(len(ends), NO_TOKEN, dtype=np.int64)
    for token, ((begin, end), apart) in enumerate(zip(offsets, special, strict=True)):
        if apart or end <= begin:
            continue
        word = int(np.searchsorted(ends, end, side="left"))  # of the token's last character
        if found[word] == NO_TOKEN and text[begin:end] != " ":
            found[word] = token
    return found


def word_labels(table: Table) -> list[list[str]]:
    """The labels of each sentence's words, none for a sentence without. Raises DataError for other numbers of them."""
    rows = [label.split(" ") if label else [] for label in table.labels or ()]
    counts = [len(text.split(" ")) for text in table.texts]
    wrong = [
        Problem(f"row {number}", f"{count} words, {len(row)} labels")
        for number, (count, row) in enumerate(zip(counts, rows, strict=True), 1)
        if row and len(row) != count
    ]
    if wrong:
        hint = "a label for each word, in a CoNLL file, or as lists of tokens and labels in a jsonl file"
        raise DataError(
            f"{table.name}: words without a label of their own", hint=hint, problems=tuple(wrong[:MAX_PROBLEMS])
        )
    return rows


def in_bio(labels: Sequence[str]) -> NDArray[np.int64]:
    """Of each label the number of its name in BIO, which data are read in (a model trained elsewhere may answer E- and
    S-); its own where there is no such label."""
    numbers = {label: number for number, label in enumerate(labels)}
    return np.asarray([numbers.get(bio_name(label), n) for n, label in enumerate(labels)], dtype=np.int64)


def label_names(table: Table) -> tuple[str, ...]:
    """O, then of each type of entity its B- and I-. Raises DataError for labels that are not IOB2, or no entity."""
    return label_order(table.classes, table.name)


TOKEN_CLASSIFICATION = EncoderTask(
    "token-classification",
    ("entity_f1", "entity_precision", "entity_recall"),
    label_names,
    make_sentences,
    "words",
    entity_f1,
)
