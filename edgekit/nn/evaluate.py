"""A classifier's logits over a data set, its validation figures, and what is worth a warning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.artifact import Task
from edgekit.data.table import Table
from edgekit.tasks.text_classification import Encoded, batches, encode, metrics

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from edgekit.progress import Progress

__all__ = [
    "balanced_weights",
    "data_warnings",
    "evaluator",
    "logits_of",
    "truncated_rows",
    "validation_figures",
]

BATCH = 64
IMBALANCE = 10  # most frequent label / rarest label


def logits_of(
    model: PreTrainedModel, encoded: Encoded, *, device: str = "cpu", progress: Progress | None = None, label: str = ""
) -> NDArray[np.float32]:
    """Logits (n, labels), rows in the data's order, computed in float32 and eval mode."""
    import torch

    model.eval()
    result = np.zeros((len(encoded), model.config.num_labels), dtype=np.float32)
    plan = list(batches(encoded, BATCH))
    with torch.inference_mode():
        for rows in progress.track(plan, label, total=len(plan)) if progress else plan:
            batch = {name: tensor.to(device) for name, tensor in encoded.batch(rows).items()}
            result[rows] = model(**batch).logits.float().cpu().numpy()
    return result


def evaluator(
    model: PreTrainedModel, encoded: Encoded, labels: NDArray[np.int64], device: str
) -> Callable[[], dict[str, float]]:
    """A function that measures the model as it is then: `validation_figures` on these rows."""
    return lambda: validation_figures(logits_of(model, encoded, device=device), labels)


def validation_figures(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    """accuracy, macro_f1, and loss (cross-entropy, nats; not finite where the logits are not)."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    loss = float(np.mean(log_sum - shifted[np.arange(len(labels)), labels]))
    return {**metrics(logits, labels), "loss": loss}


def truncated_rows(folder: Path, table: Table, task: Task, encoded: Encoded) -> int:
    """How many rows lost tokens to `task.max_length`."""
    full = [row for row, ids in enumerate(encoded.ids) if len(ids) >= task.max_length]
    if not full:
        return 0
    pairs = tuple(table.pairs[r] for r in full) if table.pairs else None
    suspects = Table(tuple(table.texts[r] for r in full), pairs, name=table.name)
    longer = encode(folder, suspects, task.model_copy(update={"max_length": task.max_length + 1}))
    return sum(len(ids) > task.max_length for ids in longer.ids)


def balanced_weights(labels: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """Weight of each of `count` labels, rows / (labels * rows of it): every label then counts the same in all."""
    rows = np.bincount(labels[labels >= 0], minlength=count)
    return np.asarray(rows.sum() / (count * np.maximum(rows, 1)), dtype=np.float32)


def data_warnings(
    train: Table, validation: Table, *, accuracy: float, rows: int, truncated: int, max_length: int, weighted: bool
) -> list[str]:
    """What is worth hearing: rows cut short, rare labels, a validation accuracy no better than guessing."""
    found = []
    if truncated:
        found.append(f"{truncated} of {rows} rows ({truncated / rows:.1%}) were cut at {max_length} tokens")
    counts = Counter(train.labels or ()).most_common()
    if counts and not weighted and counts[0][1] > IMBALANCE * counts[-1][1]:
        (often, many), (rare, few) = counts[0], counts[-1]
        found.append(f"labels are uneven: {many} rows of {often!r}, {few} of {rare!r}; class_weights evens them out")
    if validation.labels:
        label, most = Counter(validation.labels).most_common(1)[0]
        if accuracy <= most / len(validation):
            found.append(
                f"validation accuracy {accuracy:.3f} is at chance level: "
                f"always answering {label!r} gives {most / len(validation):.3f}"
            )
    return found
