"""Calibration examples for the stages that look at what flows through a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.artifact import Artifact, Task
from edgekit.stages.base import Context

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from edgekit.data.table import Table
    from edgekit.nn.calibration import Calibration

__all__ = ["draw", "draw_all"]


def draw(
    source: Artifact, folder: Path, model: PreTrainedModel, context: Context, count: int, batch_size: int, seed: int
) -> Calibration:
    """`count` examples of the training data (else of the unlabeled), encoded with the tokenizer in `folder`.

    `folder` needs tokenizer.json and config.json. Raises StageError where the step has neither data set.
    """
    from edgekit.nn.calibration import calibrate

    table = context.calibration()
    task, labels = _task_of(source, model, context, table), _labels(model)
    return calibrate(folder, table, task, model_labels=labels, count=count, batch_size=batch_size, seed=seed)


def draw_all(
    source: Artifact, folder: Path, model: PreTrainedModel, context: Context, count: int, batch_size: int, seed: int
) -> list[Calibration]:
    """`count` examples in all, of the training data and of the unlabeled, each by its size. As `draw` besides."""
    from edgekit.nn.calibration import calibrate

    tables = [context.calibration()]
    if "train" in context.data and "unlabeled" in context.data:
        tables.append(context.data["unlabeled"])
    total, labels = sum(len(table) for table in tables), _labels(model)
    return [
        calibrate(
            folder,
            table,
            _task_of(source, model, context, table),
            model_labels=labels,
            count=max(1, round(min(1.0, count / total) * len(table))),
            batch_size=batch_size,
            seed=seed,
        )
        for table in tables
    ]


def _task_of(source: Artifact, model: PreTrainedModel, context: Context, table: Table) -> Task:
    """The model's task, else the recipe's; without either, one as long as the model takes."""
    task = source.task or context.task
    if task is not None:
        return task
    limit = min(128, model.config.max_position_embeddings - 2)
    return Task(labels=_labels(model), max_length=limit, pair=table.pairs is not None)


def _labels(model: PreTrainedModel) -> tuple[str, ...]:
    return tuple(model.config.id2label[i] for i in range(model.config.num_labels))
