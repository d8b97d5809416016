"""The whole list of encoder tasks. Adding one is a file beside this one and an entry here."""

from __future__ import annotations

from pathlib import Path

from edgekit.artifact import Task, TaskKind
from edgekit.data.table import Table
from edgekit.tasks.base import EncoderTask, Examples
from edgekit.tasks.text_classification import TEXT_CLASSIFICATION
from edgekit.tasks.token_classification import TOKEN_CLASSIFICATION

__all__ = ["ENCODER_TASKS", "examples_of", "task_kind"]

ENCODER_TASKS: dict[TaskKind, EncoderTask] = {task.kind: task for task in (TEXT_CLASSIFICATION, TOKEN_CLASSIFICATION)}


def task_kind(task: Task) -> EncoderTask:
    """What there is to know of the task's kind."""
    return ENCODER_TASKS[task.kind]


def examples_of(folder: Path, table: Table, task: Task) -> Examples:
    """The table as a model of this task takes it, by the tokenizer of `folder`. Raises DataError as the task does."""
    return task_kind(task).examples(folder, table, task)
