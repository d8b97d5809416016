"""Texts and conversations as documents of tokens, and which of their tokens a model is to learn to say.

A conversation is a row of a `Table` in one of two ways: its text is the JSON of a list of messages
`[{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]`, or its text is a prompt and its pair
(second text) is the response. Both are written out by the tokenizer's own chat template.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.data.table import Table
from edgekit.errors import DataError, ModelError, Problem
from edgekit.tokenizer_files import open_tokenizer

__all__ = ["Document", "chat_documents", "read_messages", "text_documents"]

ANSWERS = "assistant"  # the role whose words are learnt
MAX_PROBLEMS = 10  # rows shown at once
Message = dict[str, str]
Render = Callable[[list[Message], bool], str]  # messages, and whether the beginning of an answer is to follow them
Span = tuple[int, int]  # characters


@dataclass(frozen=True)
class Document:
    """Token ids (length,) int32; `counted` (length,): the tokens that are to be learnt, given those before them."""

    ids: NDArray[np.int32]
    counted: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)


def text_documents(folder: Path, table: Table) -> tuple[Document, ...]:
    """One document a text, by the folder's `tokenizer.json`, with the special tokens that it adds. All of it counts."""
    encodings = open_tokenizer(folder).encode_batch(list(table.texts))
    return tuple(Document(np.asarray(e.ids, dtype=np.int32), np.ones(len(e.ids), dtype=bool)) for e in encodings)


def chat_documents(folder: Path, table: Table) -> tuple[Document, ...]:
    """Conversations through the tokenizer's chat template; only the answers count.

    One document a conversation. A template that writes earlier answers otherwise than the last one (some drop the
    reasoning) gives one document an answer, as the model will meet it.
    Raises DataError for rows that are no conversations, ModelError for a tokenizer without a chat template.
    """
    render = _renderer(folder)
    texts: list[str] = []
    spans: list[list[Span]] = []
    for number, messages in enumerate(read_messages(table), 1):
        for text, answers in _written(render, messages, f"{table.name}, row {number}"):
            texts.append(text)
            spans.append(answers)
    encodings = open_tokenizer(folder).encode_batch(texts, add_special_tokens=False)
    documents = []
    for encoding, answers in zip(encodings, spans, strict=True):
        begins = np.asarray([start for start, _ in encoding.offsets])
        counted = np.any([(begins >= start) & (begins < end) for start, end in answers], axis=0)
        documents.append(Document(np.asarray(encoding.ids, dtype=np.int32), counted))
    return tuple(documents)


def read_messages(table: Table) -> list[list[Message]]:
    """The conversations of a table. Raises DataError that names the rows that are none, and why."""
    if table.pairs is not None:
        return [
            [{"role": "user", "content": prompt}, {"role": ANSWERS, "content": response}]
            for prompt, response in zip(table.texts, table.pairs, strict=True)
        ]
    found: list[list[Message]] = []
    broken: list[Problem] = []
    for number, text in enumerate(table.texts, 1):
        try:
            messages = json.loads(text)
        except json.JSONDecodeError:
            messages = None
        wrong = _what_is_wrong(messages)
        if wrong:
            broken.append(Problem(f"row {number}", wrong))
        else:
            found.append(messages)
    if broken:
        rows = "row is" if len(broken) == 1 else "rows are"
        hint = 'a row is a list of {"role", "content"}, or a prompt with its response as the second text'
        raise DataError(
            f"{table.name}: {len(broken)} {rows} no conversation", hint=hint, problems=tuple(broken[:MAX_PROBLEMS])
        )
    return found


def _what_is_wrong(messages: object) -> str:
    if not isinstance(messages, list) or not messages:
        return "not the JSON of a list of messages"
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or not all(isinstance(message.get(k), str) for k in ("role", "content")):
            return f"message {number} has no role and content that are texts"
    if messages[0]["role"] == ANSWERS:
        return "it begins with an answer"
    return "" if any(message["role"] == ANSWERS for message in messages) else f"no message has the role {ANSWERS!r}"


def _renderer(folder: Path) -> Render:
    """The folder's chat template, run by Transformers in jinja's sandbox."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if not tokenizer.chat_template:
        hint = (
            "put the chat_template.jinja of the model that it is to talk like beside tokenizer.json, or train on texts"
        )
        raise ModelError(f"the tokenizer of {folder} has no chat template", hint=hint)

    def render(messages: list[Message], prompt: bool) -> str:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt))

    return render


def _written(render: Render, messages: list[Message], where: str) -> Iterator[tuple[str, list[Span]]]:
    """The conversation's text with its answers' spans; or, one by one, the texts up to each answer."""
    from jinja2 import TemplateError

    places = [place for place, message in enumerate(messages) if message["role"] == ANSWERS]
    try:
        whole = render(messages, False)
        turns = [(render(messages[:place], True), render(messages[: place + 1], False)) for place in places]
    except TemplateError as error:
        raise DataError(f"{where}: the chat template refuses it: {error}") from None
    if not all(answered.startswith(asked) for asked, answered in turns):
        hint = "its generation prompt must be the beginning of the answer's turn"
        raise ModelError(f"{where}: the chat template writes an answer otherwise than it asks for it", hint=hint)
    if all(whole.startswith(answered) for _, answered in turns):
        yield whole, [(len(asked), len(answered)) for asked, answered in turns]
    else:
        yield from ((answered, [(len(asked), len(answered))]) for asked, answered in turns)
