"""SQuAD's format: questions on paragraphs, with answers that stand in them; and the answers of flat files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekit.data.rows import Row
from edgekit.errors import DataError

__all__ = ["answers_label", "is_unanswered", "read_squad"]

COLUMNS = ["id", "question", "context", "answers"]
ABSENT = -1  # the place of an answer that does not stand in its context


def read_squad(path: Path, text: str) -> tuple[list[str], list[Row]]:
    """The columns id, question, context and answers, and a row for each question (SQuAD, XQuAD, CMRC2018). CMRC2018's
    own format, a list of contexts whose answers are texts alone, is read too: each is at its first place.

    Raises DataError for a file of another shape, or without questions.
    """
    hint = 'SQuAD\'s: {"data": [{"paragraphs": [{"context": TEXT, "qas": [{"question": TEXT, "answers": [...]}]}]}]}'
    try:
        rows = list(_rows(json.loads(text)))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON: {error.msg}", hint=hint) from None
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not SQuAD's format ({type(error).__name__}: {error})", hint=hint) from None
    if not rows:
        raise DataError(f"{path} has no questions")
    return list(COLUMNS), rows


def _rows(content: Any) -> Iterator[Row]:
    if isinstance(content, list) and content:
        yield from _cmrc_rows(content)
        return
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                values = (asked.get("id"), asked["question"], paragraph["context"], asked.get("answers"))
                yield dict(zip(COLUMNS, values, strict=True))


def _cmrc_rows(content: Any) -> Iterator[Row]:
    for paragraph in content:
        context = paragraph["context_text"]
        for asked in paragraph["qas"]:
            if not isinstance(asked["answers"], list):
                raise TypeError("answers is no list")
            answers = [{"text": text, "answer_start": context.find(text)} for text in asked["answers"]]
            yield dict(zip(COLUMNS, (asked.get("query_id"), asked["query_text"], context, answers), strict=True))


def is_unanswered(value: object) -> bool:
    """Whether there is no answer, or only empty ones, as SQuAD 2.0 has it of questions that cannot be answered."""
    answers = value.get("text") if isinstance(value, dict) else value
    if not isinstance(answers, list):
        return answers is None
    texts = [answer.get("text") if isinstance(answer, dict) else answer for answer in answers]
    return all(isinstance(text, str) and not text.strip() for text in texts)


def answers_label(value: object, context: str) -> str | None:
    """Answers as `Table` holds them, each where it stands: at its `answer_start`, else at the nearest place where the
    context has it. None where there are none, or they are no answers.

    `value`: [{"text": ..., "answer_start": ...}], or {"text": [...], "answer_start": [...]} as flat files have it.
    """
    if isinstance(value, dict):
        texts, starts = value.get("text"), value.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            return None
        value = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    if not isinstance(value, list) or not value:
        return None
    found = []
    for answer in value:
        text, start = (answer.get("text"), answer.get("answer_start")) if isinstance(answer, dict) else (None, None)
        if not isinstance(text, str) or not text.strip() or not isinstance(start, int):
            return None
        found.append((text.strip(), _place(text.strip(), start, context)))
    return json.dumps(found, ensure_ascii=False)


def _place(text: str, start: int, context: str) -> int:
    before, after = context.rfind(text, 0, max(start, 0) + len(text)), context.find(text, max(start, 0))
    places = [place for place in (before, after) if place != ABSENT]
    return min(places, key=lambda place: abs(place - start), default=ABSENT)
