"""A model's answers over a data set, its validation figures, and what is worth a warning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.artifact import Task
from edgekit.data.table import Table
from edgekit.errors import DataError
from edgekit.nn.head import output_of
from edgekit.tasks.base import Encoded, Examples, batches, tokenize
from edgekit.tasks.encoders import rows_of, task_kind

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
    """Logits (places, width) as `Examples` lays them out, rows in the data's order, in float32 and eval mode."""
    import torch

    model.eval()
    found: list[NDArray[np.float32]] = [np.zeros((0, 0), np.float32)] * len(encoded)
    plan, lengths = list(batches(encoded, BATCH)), encoded.lengths
    with torch.inference_mode():
        for rows in progress.track(plan, label, total=len(plan)) if progress else plan:
            batch = {name: tensor.to(device) for name, tensor in encoded.batch(rows).items()}
            output = output_of(model, batch).float().cpu().numpy()
            for row, answer in zip(rows, output, strict=True):
                found[row] = answer[: lengths[row]] if answer.ndim == 2 else answer[None]
    return np.concatenate(found)


def evaluator(model: PreTrainedModel, examples: Examples, device: str) -> Callable[[], dict[str, float]]:
    """A function that measures the model as it is then: `validation_figures` on these examples."""
    return lambda: validation_figures(logits_of(model, examples.encoded, device=device), examples)


def validation_figures(logits: NDArray[np.float32], examples: Examples) -> dict[str, float]:
    """The task's metrics, and loss (not finite where the logits are not). Raises DataError without labels."""
    answers = examples.read(logits)
    figures = examples.judge(answers).metrics
    if not figures:
        raise DataError("the validation data have no labels", hint="name the label column")
    return {**figures, "loss": examples.mean_loss(answers)}


def truncated_rows(folder: Path, table: Table, task: Task, encoded: Encoded) -> int:
    """How many rows lost tokens to `task.max_length`; none of a task that cuts a text into several, or
    whose pictures are all as long."""
    if task_kind(task).cuts or task_kind(task).pictures:
        return 0
    full = [row for row, length in enumerate(encoded.lengths) if length >= task.max_length]
    if not full:
        return 0
    longer = tokenize(
        folder, rows_of(table, task.kind).take(full), task.model_copy(update={"max_length": task.max_length + 1})
    )
    return sum(len(row.ids) > task.max_length for row in longer)


def balanced_weights(labels: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """Weight of each of `count` labels, rows / (labels * rows of it): every label then counts the same in all.

    Raises DataError where the task has no labels to weigh."""
    if not len(labels):
        raise DataError("class_weights: nothing here is labelled by class", hint="leave it off")
    rows = np.bincount(labels[labels >= 0], minlength=count)
    return np.asarray(rows.sum() / (count * np.maximum(rows, 1)), dtype=np.float32)


def data_warnings(
    train: Table,
    validation: Table,
    *,
    accuracy: float | None,
    rows: int,
    truncated: int,
    max_length: int,
    weighted: bool,
) -> list[str]:
    """What is worth hearing: rows cut short; and where there is an accuracy, rare labels and one no better than
    guessing."""
    found = []
    if truncated:
        found.append(f"{truncated} of {rows} rows ({truncated / rows:.1%}) were cut at {max_length} tokens")
    if accuracy is None:
        return found
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
