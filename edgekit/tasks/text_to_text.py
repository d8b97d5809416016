"""Text to text: a text in, an answer out; both as token ids, by the tokenizers of the file that ships."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.artifact import Task
from edgekit.data.table import Table
from edgekit.errors import DataError, DeviceError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Exchanges", "Ids", "make_exchanges", "texts_of"]

Ids = tuple[int, ...]
READER, WRITER, SETTINGS = "tokenizer.json", "target_tokenizer.json", "generation.json"


@dataclass(frozen=True)
class Exchanges:
    """`sources`: token ids of each text that is read; `references`: the right answers (None where the data have none),
    and `targets`: their token ids (None also where the file cannot cut them)."""

    sources: tuple[Ids, ...]
    references: tuple[str, ...] | None
    targets: tuple[Ids, ...] | None

    def __len__(self) -> int:
        return len(self.sources)


def make_exchanges(folder: Path, table: Table, task: Task, *, most: int = 0) -> Exchanges:
    """The table's texts and labels (the references) as an exported folder takes them, cut at `task.max_length` tokens.
    `most` > 0: about so many rows, evenly spaced.

    A reference is framed as the model answers: the token that is forced first, the text's, the one that ends it.
    Marian's files make texts of tokens and cut none, so its references have no targets. Raises DataError for a text or
    reference without a token, DeviceError for a folder that no text-to-text model was exported to.
    """
    chosen = table.spread(most) if 0 < most < len(table) else table
    reader = _tokenizer(folder / READER)
    _check(reader, chosen, chosen.texts, "text")
    reader.enable_truncation(task.max_length)
    sources = tuple(tuple(e.ids) for e in reader.encode_batch(list(chosen.texts)))
    if chosen.labels is None or (folder / WRITER).is_file():
        return Exchanges(sources, chosen.labels, None)
    _check(reader, chosen, chosen.labels, "reference answer")
    reader.no_truncation()
    cut = reader.encode_batch(list(chosen.labels), add_special_tokens=False)
    first, end = _frame(folder)
    return Exchanges(sources, chosen.labels, tuple((*first, *e.ids, *end)[: task.max_length] for e in cut))


def texts_of(folder: Path, answers: Sequence[Sequence[int]]) -> tuple[str, ...]:
    """The answers' texts, by the tokenizer of what is written."""
    name = WRITER if (folder / WRITER).is_file() else READER
    return tuple(_tokenizer(folder / name).decode_batch([list(ids) for ids in answers]))


def _tokenizer(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    if not path.is_file():
        raise DeviceError(f"{path.parent}: no {path.name}, so texts cannot become tokens")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _check(tokenizer: Tokenizer, table: Table, texts: Sequence[str], what: str) -> None:
    """Raises DataError for a text of which the tokenizer leaves nothing."""
    found = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    empty = [text for text, encoding in zip(texts, found, strict=True) if not encoding.ids]
    if empty:
        raise DataError(f"{table.name}: a {what} without a token: {empty[0][:80]!r}", hint="leave such rows out")


def _frame(folder: Path) -> tuple[Ids, Ids]:
    """Tokens before and after those of a text."""
    try:
        told = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        return (() if told["first"] is None else (told["first"],)), tuple(told["end"][:1])
    except (OSError, ValueError, KeyError) as error:
        raise DeviceError(f"{folder / SETTINGS}: cannot be read ({type(error).__name__}: {error})") from None
