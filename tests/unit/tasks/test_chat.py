from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.data.table import Table
from edgekit.errors import DataError, ModelError
from edgekit.tasks.chat import Document, chat_documents, read_messages, text_documents
from tests.unit.nn.lm_sample import chatty, real_model

TURNS = [
    {"role": "user", "content": "Hi there"},
    {"role": "assistant", "content": "Good day"},
    {"role": "user", "content": "Who are you?"},
    {"role": "assistant", "content": "A small model"},
]
LAST_ONE_REASONS = (  # as some templates do: only the last answer shows its reasoning
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' and loop.last %}(so){% endif %}{{ m.content }}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def learnt(folder: Path, document: Document) -> str:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return "".join(tokenizer.decode([i]) for i in document.ids[document.counted].tolist()).replace("▁", " ")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return chatty(real_model("llama-6m"), tmp_path / "chatty")


def test_only_the_answers_count_with_the_token_that_ends_them(model: Path) -> None:
    (document,) = chat_documents(model, Table((json.dumps(TURNS),)))
    assert learnt(model, document) == "Good day<|im_end|>\nA small model<|im_end|>\n"


def test_a_prompt_and_its_response_are_a_conversation(model: Path) -> None:
    pairs = Table(("Hi there",), ("Good day",))
    (document,) = chat_documents(model, pairs)
    (same,) = chat_documents(model, Table((json.dumps(TURNS[:2]),)))
    assert document.ids.tolist() == same.ids.tolist()
    assert learnt(model, document) == "Good day<|im_end|>\n"


def test_a_template_that_changes_earlier_answers_gives_a_document_an_answer(tmp_path: Path) -> None:
    model = chatty(real_model("llama-6m"), tmp_path / "chatty", LAST_ONE_REASONS)
    documents = chat_documents(model, Table((json.dumps(TURNS),)))
    assert [learnt(model, document) for document in documents] == ["(so)Good day", "(so)A small model"]


def test_texts_get_the_special_tokens_of_their_tokenizer() -> None:
    folder = real_model("stories260K")
    first, second = text_documents(folder, Table(("Once upon a time", "The end")))
    assert first.ids[0] == second.ids[0] == 1  # <s>
    assert first.counted.all()


def test_a_tokenizer_without_a_chat_template_is_refused() -> None:
    with pytest.raises(ModelError, match="no chat template") as caught:
        chat_documents(real_model("llama-6m"), Table(("Hi",), ("Good day",)))
    assert "chat_template.jinja" in caught.value.hint


def test_a_template_that_asks_otherwise_than_it_writes_is_refused(tmp_path: Path) -> None:
    odd = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}{% if add_generation_prompt %}ME:{% endif %}"
    with pytest.raises(ModelError, match="row 1: the chat template writes an answer otherwise"):
        chat_documents(chatty(real_model("llama-6m"), tmp_path / "chatty", odd), Table(("Hi",), ("Good day",)))


def test_what_the_template_refuses_is_told_with_its_row(tmp_path: Path) -> None:
    strict = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(DataError, match=r"row 1: .*roles must alternate"):
        chat_documents(chatty(real_model("llama-6m"), tmp_path / "chatty", strict), Table(("Hi",), ("Good day",)))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("hello", "not the JSON"),
        ("[]", "not the JSON"),
        ('[{"role": "user"}]', "message 1 has no role and content"),
        ('[{"role": "assistant", "content": "x"}]', "begins with an answer"),
        ('[{"role": "user", "content": "x"}]', "no message has the role 'assistant'"),
    ],
)
def test_rows_that_are_no_conversation_are_named(text: str, what: str) -> None:
    good = json.dumps(TURNS)
    with pytest.raises(DataError, match="1 row is no conversation") as caught:
        read_messages(Table((good, text)))
    assert (caught.value.problems[0].where, what in caught.value.problems[0].what) == ("row 2", True)
