"""CoNLL files: a word and its label a line, a blank line between sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from edgekit.data.rows import MAX_PROBLEMS
from edgekit.errors import DataError, Problem

__all__ = ["read_conll"]

SPACE = " \t\r"  # not all of Unicode's: some words are nothing else
DOCUMENT = "-DOCSTART-"  # CoNLL-2003's line between documents
Line = tuple[int, list[str]]  # its number, from 1, and its fields


def read_conll(path: Path, text: str) -> tuple[list[str], list[Mapping[str, object]]]:
    """The columns, and a row for each sentence: lists `tokens` and `labels`, and each field by its number from "1".

    Fields are parted by tabs, or in a file without any by spaces. Among tabs, a line that begins with "#" and has none
    is a comment (CoNLL-U, Universal NER). Where the first field counts the words of each sentence, the word is the
    second and the label the third (Universal NER); else the word is the first and the label the last (CoNLL-2003).
    Raises DataError for a file without sentences, and for lines that have not as many fields as the first.
    """
    sentences = list(_sentences(text))
    if not sentences:
        raise DataError(f"{path} has no sentences")
    width = len(sentences[0][0][1])
    broken = [
        Problem(f"line {number}", f"{len(fields)} fields where the first line has {width}")
        for sentence in sentences
        for number, fields in sentence
        if len(fields) != width or not all(fields)
    ]
    if broken or width < 2:
        hint = "a word and its label in each line, with a tab between"
        raise DataError(f"{path}: not a CoNLL file", hint=hint, problems=tuple(broken[:MAX_PROBLEMS]))
    counted = width > 2 and all(_counts([fields[0] for _, fields in sentence]) for sentence in sentences)
    token, label = (1, 2) if counted else (0, width - 1)
    rows: list[Mapping[str, object]] = []
    for sentence in sentences:
        columns = [list(column) for column in zip(*(fields for _, fields in sentence), strict=True)]
        numbered = {str(number): column for number, column in enumerate(columns, 1)}
        rows.append({"tokens": columns[token], "labels": columns[label], **numbered})
    return list(rows[0]), rows


def _sentences(text: str) -> Iterator[list[Line]]:
    found: list[Line] = []
    tabs = "\t" in text
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip(SPACE) and not line.startswith(DOCUMENT):
            fields = line.split("\t") if tabs else line.split()
            if len(fields) > 1 or not line.startswith("#"):
                found.append((number, [field.strip(SPACE) for field in fields]))
        elif found:
            yield found
            found = []
    if found:
        yield found


def _counts(fields: list[str]) -> bool:
    """Whether they are 1, 2, 3, ..."""
    return fields == [str(number) for number in range(1, len(fields) + 1)]
