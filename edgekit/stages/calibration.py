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

__all__ = ["UNEXERCISED", "draw", "draw_all", "unexercised_note"]

UNEXERCISED = "the calibration data never exercise it: all that it reads is zero"
NAMED = 3  # layers that a note names


def draw(
    source: Artifact, folder: Path, model: PreTrainedModel, context: Context, count: int, batch_size: int, seed: int
) -> Calibration:
    """`count` examples of the training data (else of the unlabeled), encoded with the tokenizer in `folder`.

    `folder` needs tokenizer.json and config.json. Raises StageError where the step has neither data set, ModelError for
    texts longer than the model takes.
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


def unexercised_note(model: PreTrainedModel, calibration: Calibration) -> tuple[str, ...]:
    """A warning for layers that no example exercises; none where all are."""
    from edgekit.nn.calibration import unexercised

    found = unexercised(model, calibration)
    if not found:
        return ()
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    what = f"the calibration data never exercise {', '.join(found[:NAMED])}{more}: all that is read there is zero"
    return (f"{what}, so that the data do not tell what may go",)


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
    from edgekit.nn.architecture import check_task
    from edgekit.nn.calibration import calibrate

    labels = tuple(model.config.id2label[i] for i in range(model.config.num_labels))
    task = source.task or context.task
    if task is None:
        limit = min(128, model.config.max_position_embeddings - 2)
        task = Task(labels=labels, max_length=limit, pair=table.pairs is not None)
    check_task(source.path, task)
    return calibrate(folder, table, task, model_labels=labels, count=count, batch_size=batch_size, seed=seed)
