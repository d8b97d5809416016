"""tokenizer.json in GGUF's terms: the same ids by llama.cpp, or a refusal."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("llama_cpp")

from gguf_sample import SENTENCES, classifier, gguf_ids, hf_ids, labels, table

from edgekit.artifact import Task
from edgekit.errors import ModelError
from edgekit.formats.gguf_check import read_spec, template, tokenizer_problems
from edgekit.formats.gguf_encoder import obstacles, write_gguf
from edgekit.formats.gguf_tokenizer import read_vocabulary

TASK = Task(labels=labels(3), max_length=32)
# llama.cpp takes these control characters for spaces, where Transformers drops them
CONTROL = "\x0b\x0c\x1c\x1d\x1e\x1f\x85"
LATIN = st.text(st.characters(min_codepoint=1, max_codepoint=0x24F, exclude_characters=CONTROL), max_size=60)
IDENTITY = struct.pack("<I", 1024) + bytes(1024) + b"\0"  # SentencePiece's compiled character map that changes nothing
Tiny = Callable[..., Path]
Spec = dict[str, Any]


def change(folder: Path, edit: Callable[[Spec], object]) -> Spec:
    spec = read_spec(folder)
    edit(spec)
    (folder / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    return spec


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_any_latin_text_has_the_same_ids(
    tmp_path_factory: pytest.TempPathFactory, family: str, make_tiny: Callable[..., Path]
) -> None:
    from tokenizers import Tokenizer

    work = tmp_path_factory.mktemp("any")
    folder = make_tiny(work / "model", family)
    write_gguf(folder, TASK, work / "model.gguf", "f16")
    model = classifier(work / "model.gguf", TASK)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(TASK.max_length)

    @settings(max_examples=300, deadline=None)
    @given(LATIN)
    def same(text: str) -> None:
        assert model.encode(text, None, TASK.max_length) == tokenizer.encode(text).ids

    same()


@pytest.fixture
def make_tiny(tiny: Tiny) -> Callable[..., Path]:
    return lambda _, family: tiny(family)


@pytest.mark.parametrize(("lowercase", "strip"), [(True, None), (True, False), (False, None), (False, True)])
def test_case_and_accents_as_the_normalizer_says(
    tiny: Tiny, tmp_path: Path, lowercase: bool, strip: bool | None
) -> None:
    folder, out = tiny("bert"), tmp_path / "model.gguf"
    change(folder, lambda spec: spec["normalizer"].update(lowercase=lowercase, strip_accents=strip))
    write_gguf(folder, TASK, out, "f16")
    data = table(tuple(text for text in SENTENCES if "İ" not in text))  # two characters in lower case; one in llama.cpp
    assert gguf_ids(out, TASK, data) == hf_ids(folder, TASK, data)


def test_a_space_goes_before_the_text_where_the_bpe_wants_it(tiny: Tiny, tmp_path: Path) -> None:
    folder, out = tiny("roberta"), tmp_path / "model.gguf"
    plain = hf_ids(folder, TASK, table())
    change(folder, lambda spec: spec["pre_tokenizer"].update(add_prefix_space=True))
    assert hf_ids(folder, TASK, table()) != plain
    write_gguf(folder, TASK, out, "f16")
    safe = table(tuple(text for text in SENTENCES if "[SEP]" not in text))
    assert gguf_ids(out, TASK, safe) == hf_ids(folder, TASK, safe)


def unigram_spec() -> Spec:
    """XLM-R's kind of tokenizer, made by hand."""
    pieces = [["<s>", 0.0], ["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["▁", -3.0], ["▁card", -4.0], ["s", -2.5]]
    pieces += [["▁lo", -5.0], ["st", -4.5], ["t", -5.0], ["▁l", -6.0], ["o", -4.0], ["mon", -5.5], ["ey", -4.2]]
    specials = [{"id": i, "content": pieces[i][0]} for i in range(4)] + [{"id": len(pieces), "content": "<mask>"}]
    flags = {"special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [entry | flags for entry in specials],
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(IDENTITY).decode()},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0]}
        | {"trim_offsets": True, "add_prefix_space": True},
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 3, "vocab": pieces, "byte_fallback": False},
    }


def test_unigram_as_xlm_roberta_has_it(tiny: Tiny, tmp_path: Path) -> None:
    folder, out = tiny("roberta"), tmp_path / "model.gguf"
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "roberta"}))
    (folder / "tokenizer.json").write_text(json.dumps(unigram_spec()), encoding="utf-8")
    assert obstacles(folder, TASK) == []
    write_gguf(folder, TASK, out, "f16")
    texts = ("cards lost", "  two  spaces ", "lost money cards moneys", "ünknown loster", "", "x", "card <mask> st")
    data = table(texts, None)
    assert gguf_ids(out, TASK, data) == hf_ids(folder, TASK, data)
    pairs = table(texts, texts[::-1])
    assert gguf_ids(out, TASK, pairs) == hf_ids(folder, TASK, pairs)


@pytest.mark.parametrize(
    ("family", "edit", "told"),
    [
        ("bert", lambda s: s.update(normalizer={"type": "NFC"}), "NFC"),
        ("bert", lambda s: s["normalizer"].update(clean_text=False), "clean_text"),
        ("bert", lambda s: s.update(pre_tokenizer={"type": "Whitespace"}), "Whitespace"),
        ("bert", lambda s: s["model"].update(continuing_subword_prefix="@@"), "prefix"),
        ("bert", lambda s: s.update(post_processor=None), "post-processor"),
        ("bert", lambda s: s["model"].update(type="WordLevel"), "WordLevel"),
        ("roberta", lambda s: s["pre_tokenizer"].update(use_regex=False), "ByteLevel"),
        ("roberta", lambda s: s.update(normalizer={"type": "Lowercase"}), "Lowercase"),
        ("roberta", lambda s: s["model"].update(byte_fallback=True), "byte_fallback"),
    ],
)
def test_what_llama_cannot_do_is_refused(tiny: Tiny, family: str, edit: Callable[[Spec], object], told: str) -> None:
    folder = tiny(family)
    change(folder, edit)
    found = obstacles(folder, TASK)
    assert len(found) == 1
    assert told in str(found[0])
    assert "ONNX" in found[0].hint


def test_a_unigram_without_its_character_map_is_refused() -> None:
    spec = unigram_spec()
    assert tokenizer_problems(spec) == []
    spec["normalizer"] = {"type": "NFKC"}
    assert len(tokenizer_problems(spec)) == 1
    spec["pre_tokenizer"]["pretokenizers"][1]["prepend_scheme"] = "never"
    assert len(tokenizer_problems(spec)) == 2


def test_templates_of_all_post_processors() -> None:
    bert = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    assert template({"post_processor": bert}) == ("2 A 3", "2 A 3 B 3")
    assert template({"post_processor": bert | {"type": "RobertaProcessing"}}) == ("2 A 3", "2 A 3 3 B 3")
    wrapped = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, bert]}
    assert template({"post_processor": wrapped}) == ("2 A 3", "2 A 3 B 3")


def test_token_texts_that_clash_get_a_mark_because_llama_aborts_on_them(tiny: Tiny, tmp_path: Path) -> None:
    folder, out = tiny("bert"), tmp_path / "model.gguf"

    def clash(spec: Spec) -> None:
        vocabulary = spec["model"]["vocab"]
        vocabulary["##[MASK]"] = vocabulary.pop("unused")  # becomes [MASK], as the special token is

    change(folder, clash)
    facts = write_gguf(folder, TASK, out, "f16")
    assert any("'##[MASK]' clashes" in note for note in facts.notes)
    assert gguf_ids(out, TASK, table()) == hf_ids(folder, TASK, table())


def test_rows_beyond_the_tokenizer_are_filled_and_ids_beyond_the_rows_refused(tiny: Tiny) -> None:
    spec = read_spec(tiny("bert"))
    size = len(spec["model"]["vocab"])
    vocabulary = read_vocabulary(spec, size + 8, 0)
    assert len(vocabulary.tokens) == len(set(vocabulary.tokens)) == len(vocabulary.types) == size + 8
    with pytest.raises(ModelError, match=f"{size - 3} rows"):
        read_vocabulary(spec, size - 3, 0)
