"""The whole list of encoder tasks. Adding one is a file beside this one and an entry here."""

from __future__ import annotations

from pathlib import Path

from edgekit.artifact import Task, TaskKind
from edgekit.data.load import Columns
from edgekit.data.table import LabelKind, Table
from edgekit.tasks.base import EncoderTask, Examples
from edgekit.tasks.question_answering import QUESTION_ANSWERING
from edgekit.tasks.text_classification import TEXT_CLASSIFICATION
from edgekit.tasks.token_classification import TOKEN_CLASSIFICATION

__all__ = ["ENCODER_TASKS", "columns_of", "examples_of", "task_kind"]

ENCODER_TASKS: dict[TaskKind, EncoderTask] = {
    task.kind: task for task in (TEXT_CLASSIFICATION, TOKEN_CLASSIFICATION, QUESTION_ANSWERING)
}
COLUMNS: dict[LabelKind, tuple[str, str, str]] = {  # of the text, of the second text, of the label
    "class": ("text", "", "label"),
    "words": ("tokens", "", "labels"),
    "answers": ("question", "context", "answers"),
}


def columns_of(kind: TaskKind, text: str = "", pair: str = "", label: str = "", *, labelled: bool = True) -> Columns:
    """The columns of data for such a task; those that are not named are `COLUMNS`. `labelled`: whether there are labels
    where their column is not named."""
    if kind not in ENCODER_TASKS:
        return Columns(text=text or "text", pair=pair)
    what = ENCODER_TASKS[kind].label_kind
    first, second, told = COLUMNS[what]
    return Columns(text=text or first, pair=pair or second, label=label or (told if labelled else ""), label_kind=what)


def task_kind(task: Task) -> EncoderTask:
    """What there is to know of the task's kind."""
    return ENCODER_TASKS[task.kind]


def examples_of(folder: Path, table: Table, task: Task) -> Examples:
    """The table as a model of this task takes it, by the tokenizer of `folder`. Raises DataError as the task does."""
    return task_kind(task).examples(folder, table, task)
