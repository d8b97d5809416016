"""What a kind of task is to everything else: each has one file here, and a line in `encoders.py`.

A task turns a table into rows of tokens, a model's outputs into answers, and answers into figures; and it knows the
losses that train it. Stages, runtimes and reports know nothing of the kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgekit.artifact import Task, TaskKind
from edgekit.data.table import LabelKind, Table
from edgekit.model_config import padding_of
from edgekit.tasks.correlation import spearman
from edgekit.tokenizer_files import open_tokenizer

if TYPE_CHECKING:
    import torch
    from tokenizers import Encoding

__all__ = [
    "Encoded",
    "EncoderTask",
    "Examples",
    "Judged",
    "Tokens",
    "agreement",
    "batches",
    "encoded_of",
    "output_of_all",
    "tokenize",
]


class Encoded(Protocol):
    """The rows that a model is fed: token ids, or pictures."""

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row, as the encoder sees them."""

    def batch(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """The model's inputs, by name, (batch, ...) each."""

    def mask(self, rows: Sequence[int]) -> torch.Tensor:
        """(batch, length) bool: the encoder's tokens that are no padding."""

    def pick(self, rows: Sequence[int | None]) -> Encoded:
        """These rows; for None one that is as long as no other, a single token."""


@dataclass(frozen=True)
class Tokens:
    """Token ids of each row (ragged) and, where segments are told apart, token type ids; see `Encoded`."""

    ids: list[list[int]]
    types: list[list[int]] | None
    pad_id: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(ids) for ids in self.ids]

    def batch(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """Right-padded `input_ids`, `attention_mask` and maybe `token_type_ids`, each (batch, length) int64."""
        import torch

        width = max(len(self.ids[r]) for r in rows)
        ids = torch.full((len(rows), width), self.pad_id, dtype=torch.long)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        types = torch.zeros((len(rows), width), dtype=torch.long)
        for at, row in enumerate(rows):
            length = len(self.ids[row])
            ids[at, :length] = torch.tensor(self.ids[row])
            mask[at, :length] = 1
            if self.types is not None:
                types[at, :length] = torch.tensor(self.types[row])
        batch = {"input_ids": ids, "attention_mask": mask}
        if self.types is not None:
            batch["token_type_ids"] = types
        return batch

    def mask(self, rows: Sequence[int]) -> torch.Tensor:
        import torch

        lengths = torch.tensor([len(self.ids[r]) for r in rows])
        return torch.arange(int(lengths.max()))[None, :] < lengths[:, None]

    def pick(self, rows: Sequence[int | None]) -> Tokens:
        return Tokens(
            [[self.pad_id] if row is None else self.ids[row] for row in rows],
            None if self.types is None else [[0] if row is None else self.types[row] for row in rows],
            self.pad_id,
        )


@dataclass(frozen=True)
class Judged:
    """What a model answers, and what that is worth.

    `answers` (n, ...): to each thing that is asked (a text, a word, a question): class numbers, or similarities.
    `truth` (n,): what would be right; None without labels. `metrics`: fractions, empty without labels. `evidence`
    (rows of the table, k): what `EncoderTask.statistic` makes the main metric of.
    """

    answers: NDArray[Any]
    truth: NDArray[Any] | None
    metrics: dict[str, float]
    evidence: NDArray[np.float64] | None = None


class Examples(Protocol):
    """A table as a model of the task takes it. `units`: what it is trained on, one by one (a text, a pair, a window).

    A model's `output` on a batch is a tensor (batch, width), or (batch, length, width) where it answers token by token;
    over all rows its `logits` are (places, width): a place for each row, or for each token of each row in turn.
    """

    @property
    def encoded(self) -> Encoded:
        """The rows that are fed."""

    @property
    def places(self) -> int:
        """How many places `logits` have."""

    @property
    def lengths(self) -> list[int]:
        """Tokens of each unit."""

    @property
    def classes(self) -> NDArray[np.int64]:
        """The class numbers of all that is labelled, to weigh rare ones by; empty for a task without classes.

        Raises DataError for labels that the task does not know."""

    def fed(self, units: Sequence[int]) -> list[int]:
        """The rows that these units are made of."""

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
        """Mean (or sum) of the losses of all that is labelled in these units. `own`: against what the model answers
        itself, where there are no labels."""

    def follow(
        self, output: torch.Tensor, units: Sequence[int], told: NDArray[np.float32], temperature: float
    ) -> torch.Tensor:
        """Mean distance of these units' answers from a teacher's, which `told` holds, of all units."""

    def read(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """The answers in logits: only what does not depend on how texts were cut into tokens, so that two models' can
        be laid side by side; NaN where a model was not asked."""

    def judge(self, answers: NDArray[np.float32]) -> Judged:
        """What answers say, and are worth. Raises DataError for labels that the task does not know."""

    def mean_loss(self, answers: NDArray[np.float32]) -> float:
        """The loss over all labels (nats, or squared error); not finite where the answers are not."""


def output_of_all(logits: NDArray[np.float32], examples: Examples) -> torch.Tensor:
    """Logits (places, width) as a model's `output` on all rows, see `Examples`."""
    import torch

    found = torch.from_numpy(logits)
    if examples.places == len(examples.encoded):  # an answer a row
        return found
    return torch.nn.utils.rnn.pad_sequence(list(torch.split(found, examples.encoded.lengths)), batch_first=True)


def agreement(first: NDArray[Any], second: NDArray[Any]) -> float:
    """How much of `Judged.answers` (n,) two models answer alike: the share of equal classes; of similarities their rank
    correlation. Raises ValueError for unlike counts."""
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} rows cannot be paired")
    if np.issubdtype(first.dtype, np.floating):
        return spearman(first, second)
    return float(np.mean(first == second))


@dataclass(frozen=True)
class EncoderTask:
    """One kind of task. `metrics`: of `Judged.metrics` the main one first. `statistic`: the main metric of samples that
    hold each row so many times: evidence (rows, k) and counts (samples, rows) to (samples,); None where an answer is
    right or wrong, so that exact tests serve. `labels`: the label names that a model of a table learns. `cuts`: a unit
    is cut into several rows, so runtimes are handed token ids instead of texts. `head`: whether it takes one that is
    trained, beside the encoder. `pictures`: a text is a picture. `alike`: how much two models' logits (places, width)
    say the same, a fraction; None where answers are the same or are not."""

    kind: TaskKind
    metrics: tuple[str, ...]
    labels: Callable[[Table], tuple[str, ...]]
    examples: Callable[[Path, Table, Task], Examples]
    label_kind: LabelKind = "class"
    statistic: Callable[[NDArray[np.float64], NDArray[np.int64]], NDArray[np.float64]] | None = None
    cuts: bool = False
    head: bool = True
    pictures: bool = False
    alike: Callable[[NDArray[np.float32], NDArray[np.float32]], float] | None = None

    @property
    def main(self) -> str:
        return self.metrics[0]


def tokenize(folder: Path, table: Table, task: Task) -> list[Encoding]:
    """Each row of the table by the artifact's own `tokenizer.json`, truncated at `task.max_length`."""
    tokenizer = open_tokenizer(folder)
    tokenizer.enable_truncation(task.max_length)
    inputs = list(zip(table.texts, table.pairs, strict=True)) if table.pairs else list(table.texts)
    return list(tokenizer.encode_batch(inputs))


def encoded_of(folder: Path, encodings: Sequence[Encoding], task: Task) -> Tokens:
    """The rows to feed."""
    types = [e.type_ids for e in encodings] if task.segments else None
    return Tokens([e.ids for e in encodings], types, padding_of(folder))


def batches(encoded: Encoded, size: int, order: Sequence[int] | None = None) -> Iterator[list[int]]:
    """Row numbers in batches; without an `order`, sorted by length so that little is padded."""
    rows = list(order) if order is not None else sorted(range(len(encoded)), key=encoded.lengths.__getitem__)
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
