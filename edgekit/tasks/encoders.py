"""The whole list of encoder tasks. Adding one is a file beside this one and an entry here."""

from __future__ import annotations

from pathlib import Path

from edgekit.artifact import Task, TaskKind
from edgekit.data.load import Columns
from edgekit.data.table import LabelKind, Table
from edgekit.errors import UsageError
from edgekit.tasks.base import EncoderTask, Examples
from edgekit.tasks.image_classification import IMAGE_CLASSIFICATION
from edgekit.tasks.question_answering import QUESTION_ANSWERING
from edgekit.tasks.sentence_similarity import SENTENCE_SIMILARITY
from edgekit.tasks.text_classification import TEXT_CLASSIFICATION
from edgekit.tasks.token_classification import TOKEN_CLASSIFICATION

__all__ = [
    "ENCODER_TASKS",
    "columns_of",
    "examples_of",
    "is_ready",
    "of_pictures",
    "pairs_are_rows",
    "rows_of",
    "score_of",
    "task_kind",
]

ENCODER_TASKS: dict[TaskKind, EncoderTask] = {
    task.kind: task
    for task in (
        TEXT_CLASSIFICATION,
        TOKEN_CLASSIFICATION,
        QUESTION_ANSWERING,
        SENTENCE_SIMILARITY,
        IMAGE_CLASSIFICATION,
    )
}
COLUMNS: dict[LabelKind, tuple[str, str, str]] = {  # of the text, of the second text, of the label
    "class": ("text", "", "label"),
    "words": ("tokens", "", "labels"),
    "answers": ("question", "context", "answers"),
    "score": ("sentence1", "sentence2", "score"),
}
PICTURE = "image"  # the column of pictures


def columns_of(kind: TaskKind, text: str = "", pair: str = "", label: str = "", *, labelled: bool = True) -> Columns:
    """The columns of data for such a task; those that are not named are `COLUMNS`, of similar texts a second one only
    where the first is not named either. Answers of a text-to-text model are there only where they are named.
    `labelled`: whether there are labels where their column is not named.

    Raises UsageError for a second text of pictures.
    """
    if kind == "text-to-text":  # the label is a reference answer
        return Columns(text=text or "text", label=label, label_kind="text", lines=True)
    if kind not in ENCODER_TASKS:
        return Columns(text=text or "text", pair=pair)
    what = ENCODER_TASKS[kind].label_kind
    first, second, told = COLUMNS[what]
    if of_pictures(kind):
        if pair:
            raise UsageError("a picture has no second text", hint=f"leave the column {pair!r} out")
        return Columns(text=text or PICTURE, label=label or (told if labelled else ""), pictures=True)
    second = "" if what == "score" and text else second
    label = label or (told if labelled else "")
    return Columns(text=text or first, pair=pair or second, label=label, label_kind=what, lines=True)


def score_of(kind: TaskKind) -> str:
    """The main metric of such a task; empty where it is not an encoder's."""
    return ENCODER_TASKS[kind].metrics[0] if kind in ENCODER_TASKS else ""


def task_kind(task: Task) -> EncoderTask:
    """What there is to know of the task's kind."""
    return ENCODER_TASKS[task.kind]


def rows_of(table: Table, kind: TaskKind) -> Table:
    """The table whose rows a model of such a task is fed: a text or a pair each, or each text of a pair by itself."""
    return table if pairs_are_rows(kind) else table.one_by_one()


def pairs_are_rows(kind: TaskKind) -> bool:
    """Whether a model reads the two texts of a pair together."""
    return kind not in ENCODER_TASKS or ENCODER_TASKS[kind].label_kind != "score"


def of_pictures(kind: TaskKind) -> bool:
    """Whether a model of such a task reads pictures."""
    return kind in ENCODER_TASKS and ENCODER_TASKS[kind].pictures


def is_ready(task: Task | None) -> bool:
    """Whether a model for this task answers it as it is: its head is trained, or it takes none."""
    return task is not None and (bool(task.labels) or not task_kind(task).head)


def examples_of(folder: Path, table: Table, task: Task) -> Examples:
    """The table as a model of this task takes it, by the tokenizer of `folder`. Raises DataError as the task does."""
    return task_kind(task).examples(folder, table, task)
