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
    return _drawn(context.calibration(), source, folder, model, context, count, batch_size, seed)


def draw_all(
    source: Artifact, folder: Path, model: PreTrainedModel, context: Context, count: int, batch_size: int, seed: int
) -> list[Calibration]:
    """`count` examples in all, of the training data and of the unlabeled, each by its size. As `draw` besides."""
    tables = [context.calibration()]
    if "train" in context.data and "unlabeled" in context.data:
        tables.append(context.data["unlabeled"])
    share = min(1.0, count / sum(len(table) for table in tables))
    counts = [max(1, round(share * len(table))) for table in tables]
    return [
        _drawn(table, source, folder, model, context, some, batch_size, seed)
        for table, some in zip(tables, counts, strict=True)
    ]


def _drawn(
    table: Table,
    source: Artifact,
    folder: Path,
    model: PreTrainedModel,
    context: Context,
    count: int,
    batch_size: int,
    seed: int,
) -> Calibration:
    from edgekit.nn.calibration import calibrate

    labels = tuple(model.config.id2label[i] for i in range(model.config.num_labels))
    task = source.task or context.task
    if task is None:
        limit = min(128, model.config.max_position_embeddings - 2)
        task = Task(labels=labels, max_length=limit, pair=table.pairs is not None)
    return calibrate(folder, table, task, model_labels=labels, count=count, batch_size=batch_size, seed=seed)
