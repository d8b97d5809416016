"""Text classification, single texts or pairs: tokens in, one row of logits a text out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.artifact import Task
from edgekit.data.table import Table
from edgekit.errors import DataError
from edgekit.tasks.base import Encoded, EncoderTask, Judged, batches, encoded_of, tokenize
from edgekit.tasks.losses import UNLABELED, cross_entropy, hard_loss, soft_loss

if TYPE_CHECKING:
    import torch

__all__ = [
    "TEXT_CLASSIFICATION",
    "Encoded",
    "Texts",
    "batches",
    "by_number",
    "encode",
    "known_labels",
    "label_ids",
    "label_names",
    "listed",
    "metrics",
    "number_notes",
    "sorted_labels",
]


@dataclass(frozen=True)
class Texts:
    """See `Examples`; a unit is a text (or a pair of them), and so is a place. `folder`: where the tokenizer is; a GGUF
    file's is inside of it, and can only be judged here."""

    folder: Path
    table: Table
    task: Task

    @cached_property
    def encoded(self) -> Encoded:
        return encode(self.folder, self.table, self.task)

    @property
    def places(self) -> int:
        return len(self.table)

    @property
    def lengths(self) -> list[int]:
        return self.encoded.lengths

    @cached_property
    def classes(self) -> NDArray[np.int64]:
        """Label numbers (texts,); UNLABELED where there is none."""
        if self.table.labels is None:
            return np.full(len(self.table), UNLABELED, dtype=np.int64)
        return label_ids(self.table, self.task)

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

        labels = output.argmax(-1) if own else torch.from_numpy(self.classes[list(units)]).to(output.device)
        return hard_loss(output, labels, weights=weights, smoothing=smoothing, summed=summed)

    def follow(
        self, output: torch.Tensor, units: Sequence[int], told: NDArray[np.float32], temperature: float
    ) -> torch.Tensor:
        import torch

        return soft_loss(output, torch.from_numpy(told[list(units)]).to(output.device), temperature)

    def read(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        return logits

    def judge(self, answers: NDArray[np.float32]) -> Judged:
        predicted = np.asarray(answers.argmax(axis=1), dtype=np.int64)
        if self.table.labels is None:
            return Judged(predicted, None, {})
        return Judged(predicted, self.classes, metrics(answers, self.classes))

    def mean_loss(self, answers: NDArray[np.float32]) -> float:
        return cross_entropy(answers, self.classes)


def encode(folder: Path, table: Table, task: Task) -> Encoded:
    """Tokenize with the artifact's own `tokenizer.json`, truncated at `task.max_length`."""
    return encoded_of(folder, tokenize(folder, table, task), task)


def label_names(table: Table) -> tuple[str, ...]:
    """The label names of a table; numbers sort as numbers, names by code point. Raises DataError for fewer than two."""
    names = table.classes
    if len(names) < 2:
        raise DataError(f"{table.name}: a classifier needs at least 2 labels, found {len(names)}")
    return sorted_labels(names)


def sorted_labels(names: Set[str]) -> tuple[str, ...]:
    """Numbers sort as numbers, names by code point."""
    if all(name.lstrip("-").isdigit() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def label_ids(table: Table, task: Task) -> NDArray[np.int64]:
    """Label numbers (n,), UNLABELED for an empty one. Raises DataError naming labels that the task does not have."""
    if table.labels is None:
        raise DataError(f"{table.name} has no labels", hint="name the label column")
    index = known_labels(table, task, table.classes)
    return np.asarray([index[name] for name in table.labels], dtype=np.int64)


def known_labels(table: Table, task: Task, names: Set[str]) -> dict[str, int]:
    """Label name to number, numbers as names included (`by_number`). Raises DataError naming those of `names` that the
    task does not have."""
    index = {"": UNLABELED} | {name: number for number, name in enumerate(task.labels)}
    index |= {name: index[known] for name, known in by_number(names, task).items()}
    unknown = names - index.keys()
    if unknown:
        raise DataError(
            f"{table.name} has {len(unknown)} label(s) that the model does not know: {listed(unknown)}; "
            f"it knows {listed(task.labels)}",
            hint="a label that was never trained cannot be predicted: add examples, or drop those rows",
        )
    return index


def by_number(names: Set[str], task: Task) -> dict[str, str]:
    """The label LABEL_n for each name n, where the task's labels are what Transformers calls those of a head that was
    given no names, and all of `names` are numbers of such; else {}, and for words, whose labels are BIO."""
    of_head = {str(number): f"LABEL_{number}" for number in range(len(task.labels))}
    if task.kind == "token-classification" or set(of_head.values()) != set(task.labels):
        return {}
    if not names <= of_head.keys():
        return {}
    return {name: of_head[name] for name in names}


def number_notes(tables: Iterable[Table], task: Task) -> tuple[str, ...]:
    """That the tables' labels are read so, in words; () where they are not."""
    found = {name: label for table in tables for name, label in by_number(table.classes, task).items()}
    if not found:
        return ()
    names = sorted(found, key=int)
    shown = ", ".join(f"{name} is {found[name]}" for name in names[:3]) + (", ..." if len(names) > 3 else "")
    return (f"the data's labels are numbers, taken for those of the model's head: {shown}",)


def listed(names: Iterable[str]) -> str:
    """Some of the names, for a message: those of a task in its order, others sorted."""
    found = list(names) if isinstance(names, Sequence) else sorted(names)
    return ", ".join(repr(name) for name in found[:5]) + (", ..." if len(found) > 5 else "")


def metrics(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    """accuracy and macro-F1 (unweighted mean over the labels that occur or are predicted), as fractions."""
    predicted = logits.argmax(axis=1)
    scores = []
    for label in np.union1d(labels, predicted):
        hits = float(np.sum((predicted == label) & (labels == label)))
        total = float(np.sum(predicted == label) + np.sum(labels == label))
        scores.append(2 * hits / total)
    return {"accuracy": float(np.mean(predicted == labels)), "macro_f1": float(np.mean(scores))}


TEXT_CLASSIFICATION = EncoderTask("text-classification", ("accuracy", "macro_f1"), label_names, Texts)
