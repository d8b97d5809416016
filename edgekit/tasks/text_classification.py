"""Text classification, single texts or pairs: tokens in, logits out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.artifact import Task
from edgekit.data.table import Table
from edgekit.errors import DataError
from edgekit.model_config import pad_id, read_config

if TYPE_CHECKING:
    import torch

__all__ = ["Encoded", "batches", "encode", "label_ids", "label_names", "metrics"]


@dataclass(frozen=True)
class Encoded:
    """Token ids per example (ragged) and, where segments are told apart, token type ids."""

    ids: list[list[int]]
    types: list[list[int]] | None
    pad_id: int

    def __len__(self) -> int:
        return len(self.ids)

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


def encode(folder: Path, table: Table, task: Task) -> Encoded:
    """Tokenize with the artifact's own `tokenizer.json`, truncated at `task.max_length`."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(task.max_length)
    inputs = list(zip(table.texts, table.pairs, strict=True)) if table.pairs else list(table.texts)
    encodings = tokenizer.encode_batch(inputs)
    types = [e.type_ids for e in encodings] if task.segments else None
    return Encoded([e.ids for e in encodings], types, pad_id(read_config(folder)))


def batches(encoded: Encoded, size: int, order: Sequence[int] | None = None) -> Iterator[list[int]]:
    """Row numbers in batches; without an `order`, sorted by length so that little is padded."""
    rows = list(order) if order is not None else sorted(range(len(encoded)), key=lambda r: len(encoded.ids[r]))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def label_names(table: Table) -> tuple[str, ...]:
    """The label names of a table; numbers sort as numbers, names by code point. Raises DataError for fewer than two."""
    names = set(table.labels or ())
    if len(names) < 2:
        raise DataError(f"{table.name}: a classifier needs at least 2 labels, found {len(names)}")
    if all(name.lstrip("-").isdigit() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def label_ids(table: Table, task: Task) -> NDArray[np.int64]:
    """Label numbers (n,). Raises DataError naming the labels that the task does not have."""
    index = {name: number for number, name in enumerate(task.labels)}
    if table.labels is None:
        raise DataError(f"{table.name} has no labels", hint="name the label column")
    unknown = sorted(set(table.labels) - index.keys())
    if unknown:
        shown = ", ".join(repr(name) for name in unknown[:5])
        raise DataError(
            f"{table.name} has {len(unknown)} label(s) that the training data do not have: {shown}",
            hint="a label that was never trained cannot be predicted: add examples, or drop those rows",
        )
    return np.asarray([index[name] for name in table.labels], dtype=np.int64)


def metrics(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    """accuracy and macro-F1 (unweighted mean over the labels that occur or are predicted), as fractions."""
    predicted = logits.argmax(axis=1)
    scores = []
    for label in np.union1d(labels, predicted):
        hits = float(np.sum((predicted == label) & (labels == label)))
        total = float(np.sum(predicted == label) + np.sum(labels == label))
        scores.append(2 * hits / total)
    return {"accuracy": float(np.mean(predicted == labels)), "macro_f1": float(np.mean(scores))}
