"""CoNLL files: a word and its label a line, a blank line between sentences."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from edgekit.data.rows import MAX_PROBLEMS, Row
from edgekit.errors import DataError, Problem

__all__ = ["read_conll"]

LINE_END = re.compile(r"\r\n|\n|\r")
SPACE = " \t"  # not all of Unicode's: some words are nothing else
DOCUMENT = "-DOCSTART-"  # CoNLL-2003's line between documents
Line = tuple[int, list[str]]  # its number, from 1, and its fields


def read_conll(path: Path, text: str) -> tuple[list[str], list[Row]]:
    """The columns, and a row for each sentence: lists `tokens` and `labels`, and each field by its number from "1".

    Fields are parted by tabs; in a file without any by spaces: a word may be, or hold, one of Unicode's other spaces.
    Those part fields only where lines have other numbers of fields without. Among tabs, a line that begins with "#" and
    has none is a comment (CoNLL-U, Universal NER). Where the first field counts the words of each sentence, the word is
    the second and the label the third (Universal NER); else the word is the first and the label the last (CoNLL-2003).
    Raises DataError for a file without sentences, and for lines that have not as many fields as the first.
    """
    sentences = list(_sentences(text, _by_tabs if "\t" in text else _by_spaces))
    if not sentences:
        raise DataError(f"{path} has no sentences")
    if not _sound(sentences) and "\t" not in text and _sound(others := list(_sentences(text, str.split))):
        sentences = others
    if not _sound(sentences):
        hint = "a word and its label in each line, with a tab between"
        raise DataError(f"{path}: not a CoNLL file", hint=hint, problems=tuple(_broken(sentences)[:MAX_PROBLEMS]))
    width = _width(sentences)
    counted = width > 2 and all(_counts([fields[0] for _, fields in sentence]) for sentence in sentences)
    token, label = (1, 2) if counted else (0, width - 1)
    rows: list[Row] = []
    for sentence in sentences:
        columns = [list(column) for column in zip(*(fields for _, fields in sentence), strict=True)]
        numbered = {str(number): column for number, column in enumerate(columns, 1)}
        rows.append({"tokens": columns[token], "labels": columns[label], **numbered})
    return list(rows[0]), rows


def _by_tabs(line: str) -> list[str]:
    """None of a comment."""
    fields = [field.strip(SPACE) for field in line.split("\t")]
    return [] if len(fields) == 1 and line.startswith("#") else fields


def _by_spaces(line: str) -> list[str]:
    return [field.strip() or field for field in line.strip(SPACE).split(" ") if field]


def _sentences(text: str, part: Callable[[str], list[str]]) -> Iterator[list[Line]]:
    found: list[Line] = []
    for number, line in enumerate(LINE_END.split(text), 1):
        if line.strip(SPACE) and not line.startswith(DOCUMENT):
            fields = part(line)
            if fields:
                found.append((number, fields))
        elif found:
            yield found
            found = []
    if found:
        yield found


def _width(sentences: list[list[Line]]) -> int:
    return len(sentences[0][0][1])


def _sound(sentences: list[list[Line]]) -> bool:
    return _width(sentences) > 1 and not _broken(sentences)


def _broken(sentences: list[list[Line]]) -> list[Problem]:
    """The lines that have not as many fields as the first, or an empty one."""
    width = _width(sentences)
    return [
        Problem(f"line {number}", f"{len(fields)} fields where the first line has {width}")
        for sentence in sentences
        for number, fields in sentence
        if len(fields) != width or not all(fields)
    ]


def _counts(fields: list[str]) -> bool:
    """Whether they are 1, 2, 3, ..."""
    return fields == [str(number) for number in range(1, len(fields) + 1)]
