"""From a table of texts or conversations to the rows that a language model learns from, and what was lost of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgekit.artifact import Task
from edgekit.data.table import Table
from edgekit.errors import DataError, StageError
from edgekit.nn.lm_rows import Packing, Rows, one_a_row, packed, pieces, stream
from edgekit.tasks.chat import Document, chat_documents, text_documents

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Kind", "Lesson", "check_length", "language_task", "read_lesson"]

Kind = Literal["texts", "chats"]


@dataclass(frozen=True)
class Lesson:
    """Rows to learn from; of the conversations, how many were cut at the greatest length, and how many of those lost
    all their answers with it."""

    rows: Rows
    documents: int
    cut: int = 0
    lost: int = 0

    @property
    def warnings(self) -> tuple[str, ...]:
        if not self.cut:
            return ()
        share = f"{self.cut} of {self.documents} conversations ({self.cut / self.documents:.1%})"
        return (f"{share} were cut; {self.lost} of them lost every answer and are left out",)


def read_lesson(folder: Path, table: Table, task: Task, kind: Kind, packing: Packing = "auto") -> Lesson:
    """The table as rows of at most `task.max_length` tokens, by the tokenizer in `folder`.

    "stream": texts one after the other, cut into full rows; "documents": several in a row, each on its own; "off": one
    a row; "auto": texts as a stream, conversations packed. Longer texts go on in another row; of conversations the
    first tokens are kept. Raises DataError where nothing is left to learn, and as `chat_documents` does.
    """
    length = task.max_length
    if kind == "chats":
        documents = chat_documents(folder, table)
        kept = [Document(document.ids[:length], document.counted[:length]) for document in documents]
        cut = sum(len(document) > length for document in documents)
        lost = sum(not document.counted.any() for document in kept)
        rows = _arranged([d for d in kept if d.counted.any()], length, "documents" if packing == "auto" else packing)
        lesson = Lesson(rows, len(documents), cut, lost)
    else:
        documents = text_documents(folder, table)
        rows = _arranged(documents, length, "stream" if packing == "auto" else packing)
        lesson = Lesson(rows, len(documents))
    if not len(lesson.rows):
        hint = "give more data, or a greater --max-length"
        raise DataError(f"{table.name}: no token is left to learn from, at {length} tokens a row", hint=hint)
    return lesson


def _arranged(documents: Sequence[Document], length: int, packing: Packing) -> Rows:
    if not documents:
        return one_a_row(documents)
    if packing == "stream":
        return stream(documents, length)
    short = pieces(documents, length)
    return packed(short, length) if packing == "documents" else one_a_row(short)


def language_task(task: Task | None) -> Task:
    """The task, which says how long a row is. Raises StageError where it is none of language modeling."""
    if task is None or task.kind != "language-modeling":
        raise StageError("this stage needs a language-modeling task", hint="give a --max-length, in tokens a row")
    return task


def check_length(model: PreTrainedModel, task: Task) -> None:
    """Raises StageError for rows longer than the model's context."""
    most = getattr(model.config, "max_position_embeddings", None)
    if most is not None and task.max_length > most:
        hint = f"give a --max-length of at most {most}"
        raise StageError(f"rows of {task.max_length} tokens are longer than the model's context of {most}", hint=hint)
