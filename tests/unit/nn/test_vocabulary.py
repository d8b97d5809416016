from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from edgekit.errors import StageError
from edgekit.nn.load import load_classifier, save_model
from edgekit.nn.surgery import settle
from edgekit.nn.vocabulary import (
    always_kept,
    check_same,
    choose_tokens,
    load_spec,
    prune_embedding,
    rewrite,
    seen_tokens,
    special_tokens,
    tokens_of,
    write_tokenizer,
)

Spec = dict[str, Any]
WORD = st.text(alphabet="abcdeé", min_size=1, max_size=8)
TEXT = st.lists(WORD, min_size=1, max_size=6).map(" ".join)


def wordpiece(words: list[str], letters: str) -> Spec:
    """A WordPiece tokenizer; letters outside `letters` make a word unknown, unless a token spans them."""
    from tokenizers import models, pre_tokenizers

    tokens = ["[PAD]", "[UNK]", *letters, *(f"##{c}" for c in letters), *words]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]"])
    return json.loads(tokenizer.to_str())


def bpe(texts: list[str], byte_level: bool) -> Spec:
    from tokenizers import models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=None if byte_level else "<unk>"))
    tokenizer.pre_tokenizer = (
        pre_tokenizers.ByteLevel(add_prefix_space=False) if byte_level else pre_tokenizers.Whitespace()
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet() if byte_level else []
    trainer = trainers.BpeTrainer(
        vocab_size=340 if byte_level else 60,
        special_tokens=["<s>", "<unk>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return json.loads(tokenizer.to_str())


def unigram(pieces: list[tuple[str, float]]) -> Spec:
    from tokenizers import models, pre_tokenizers

    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), *pieces], 0, False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return json.loads(tokenizer.to_str())


def split(spec: Spec, text: str) -> list[str]:
    return Tokenizer.from_str(json.dumps(spec)).encode(text, add_special_tokens=False).tokens


def assert_same(spec: Spec, data: list[str], words: list[str], keep: str) -> None:
    """After pruning to `data`, any text made of words of `data` is split as before."""
    kept = choose_tokens(spec, seen_tokens(spec, data), keep=keep, min_count=1, common=0, always=())
    pruned = rewrite(spec, kept)
    assert sorted(tokens_of(pruned).values()) == list(range(len(kept)))
    for text in (*data, " ".join(words), *words):
        assert split(pruned, text) == split(spec, text)
    assert check_same(spec, pruned, kept, data) == len(data)


KEEPS = st.sampled_from(["data", "data+letters", "data+pieces"])


@settings(max_examples=150, deadline=None)
@given(
    words=st.lists(st.one_of(WORD, WORD.map("##".__add__)), max_size=25),
    letters=st.sampled_from(["", "ab", "abcde"]),
    data=st.lists(TEXT, min_size=1, max_size=4),
    keep=KEEPS,
    draw=st.randoms(use_true_random=False),
)
def test_wordpiece_splits_kept_words_as_before(
    words: list[str], letters: str, data: list[str], keep: str, draw: Any
) -> None:
    seen = [word for text in data for word in text.split()]
    assert_same(wordpiece(words, letters), data, draw.choices(seen, k=6), keep)


def test_an_unknown_word_stays_unknown() -> None:
    """ "abc" fails after "ab"; without "ab" it would be "a ##bc": the tokens taken before the failure must stay."""
    spec = wordpiece(["ab", "##bc"], "a")
    assert split(spec, "abc") == ["[UNK]"]
    assert_same(spec, ["abc"], ["abc"], "data")


@settings(max_examples=60, deadline=None)
@given(
    corpus=st.lists(TEXT, min_size=3, max_size=8),
    data=st.lists(TEXT, min_size=1, max_size=4),
    byte_level=st.booleans(),
    keep=KEEPS,
    draw=st.randoms(use_true_random=False),
)
def test_bpe_splits_kept_words_as_before(
    corpus: list[str], data: list[str], byte_level: bool, keep: str, draw: Any
) -> None:
    seen = [word for text in data for word in text.split()]
    words = [] if byte_level else draw.choices(seen, k=6)  # byte-level words include the space before them
    assert_same(bpe(corpus * 3, byte_level), data, words, keep)


@settings(max_examples=100, deadline=None)
@given(
    pieces=st.dictionaries(
        st.text(alphabet="▁abc", min_size=1, max_size=4),
        st.integers(-1600, -16).map(lambda n: n / 16),
        min_size=1,
        max_size=20,
    ),
    data=st.lists(st.lists(st.text("abc", min_size=1, max_size=6), min_size=1).map(" ".join), min_size=1, max_size=3),
    keep=KEEPS,
)
def test_unigram_splits_texts_as_before(pieces: dict[str, float], data: list[str], keep: str) -> None:
    assert_same(unigram(list(pieces.items())), data, [], keep)


def test_what_is_kept(make_wordpiece: Callable[[list[str]], Spec]) -> None:
    spec = make_wordpiece(["card", "cash", "##s", "money", "karte", "straße"])
    ids = tokens_of(spec)
    names = {i: token for token, i in ids.items()}

    def kept(keep: str = "data", min_count: int = 1, common: int = 0) -> set[str]:
        counts = seen_tokens(spec, ["my cards", "cards", "cash"])
        chosen = choose_tokens(spec, counts, keep=keep, min_count=min_count, common=common, always=())
        return {names[i] for i in chosen}

    special = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    assert kept() == special | {"m", "##y", "card", "##s", "cash"}
    assert kept(min_count=2) == special | {"card", "##s"}
    assert kept("data+pieces") >= {"z", "##z", "9", "##9", "##?"}
    assert kept(common=8) == kept() | {"a", "b"}, "the lowest ids, without [unused0]"


def test_letters_of_scripts_that_the_data_use() -> None:
    spec = wordpiece(["##ж", "ж", "é", "##é", "字"], "abc")
    counts = seen_tokens(spec, ["abc"])
    names = {i: token for token, i in tokens_of(spec).items()}
    chosen = choose_tokens(spec, counts, keep="data+letters", min_count=1, common=0, always=())
    assert {"é", "##é", "##c"} <= {names[i] for i in chosen}
    assert not {"ж", "##ж", "字"} & {names[i] for i in chosen}


def test_folder_is_consistent(any_family: Path, tmp_path: Path) -> None:
    """Special tokens, config ids, embedding rows, AutoTokenizer and position ids agree after pruning."""
    out = tmp_path / "out"
    model = load_classifier(any_family)
    save_model(model, out, tokenizer_from=any_family, edits=settle(model))
    spec = load_spec(out)
    texts = ["my card is lost", "where is my money?"]
    kept = choose_tokens(
        spec, seen_tokens(spec, texts), keep="data", min_count=1, common=0, always=always_kept(model.config.to_dict())
    )
    assert len(kept) < model.config.vocab_size
    old = Tokenizer.from_file(str(any_family / "tokenizer.json"))
    with torch.inference_mode():
        before = model(input_ids=torch.tensor([old.encode(texts[1]).ids])).logits
    prune_embedding(model, kept)
    write_tokenizer(spec, kept, out)
    save_model(model, out, tokenizer_from=out, edits=settle(model))
    again = load_classifier(out)
    new = AutoTokenizer.from_pretrained(out)
    assert len(new) == again.config.vocab_size == len(kept)
    encoded = new(texts[1], return_tensors="pt")
    assert new.convert_ids_to_tokens(encoded["input_ids"][0]) == old.encode(texts[1]).tokens
    with torch.inference_mode():
        torch.testing.assert_close(again(input_ids=encoded["input_ids"]).logits, before)
    assert again.config.pad_token_id == new.pad_token_id
    assert again.get_input_embeddings().padding_idx == new.pad_token_id
    if (out / "vocab.txt").exists():
        lines = (out / "vocab.txt").read_text(encoding="utf-8").splitlines()
        assert lines == [token for token, _ in sorted(new.get_vocab().items(), key=lambda item: item[1])]


def test_tokens_without_an_embedding_are_refused(tiny: Callable[..., Path]) -> None:
    model = load_classifier(tiny("bert"))
    with pytest.raises(StageError, match="do not belong together"):
        prune_embedding(model, [0, 1, 2, 3, model.config.vocab_size])


def test_settings_with_ids_are_renumbered(tiny: Callable[..., Path]) -> None:
    folder = tiny("bert")
    settings_file = folder / "tokenizer_config.json"
    content = json.loads(settings_file.read_text())
    content["added_tokens_decoder"] = {"0": {"content": "[PAD]"}, "5": {"content": "[unused0]"}}
    settings_file.write_text(json.dumps(content))
    spec = load_spec(folder)
    write_tokenizer(spec, [0, 1, 2, 3, 4, 30, 40], folder)
    assert json.loads(settings_file.read_text())["added_tokens_decoder"] == {"0": {"content": "[PAD]"}}


def test_a_word_level_tokenizer_is_refused(tmp_path: Path) -> None:
    from tokenizers import models

    Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(StageError, match="WordLevel"):
        load_spec(tmp_path)


def test_a_difference_is_found() -> None:
    spec = wordpiece(["ab", "##cd"], "abcd")
    pruned = rewrite(spec, choose_tokens(spec, Counter(), keep="data+pieces", min_count=1, common=0, always=()))
    with pytest.raises(StageError, match="differently"):
        check_same(spec, pruned, list(tokens_of(spec).values()), ["abcd"])


def test_unigram_folder_with_positions_counted_from_padding(tmp_path: Path) -> None:
    """XLM-R: scores in tokenizer.json, <mask> last, position ids that start after the padding id."""
    from tokenizers import models, pre_tokenizers, processors
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)]
    words = ("▁my", "▁card", "▁is", "s", "▁lost", "▁money", "where", *"abcdefghijklmnopqrtuvwxyz")
    pieces += [(word, -4.0 - i / 8) for i, word in enumerate(words)]
    tokenizer = Tokenizer(models.Unigram([*pieces, ("<mask>", 0.0)], 3, False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    specials = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=specials)
    source, out = tmp_path / "source", tmp_path / "out"
    count = len(pieces) + 1
    config = XLMRobertaConfig(
        vocab_size=count,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=40,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    XLMRobertaForSequenceClassification(config).save_pretrained(source)
    tokenizer.save(str(source / "tokenizer.json"))
    (source / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    model = load_classifier(source)
    save_model(model, out, tokenizer_from=source)
    spec = load_spec(out)
    texts = ["my cards", "my card is lost"]
    kept = choose_tokens(
        spec, seen_tokens(spec, texts), keep="data", min_count=1, common=0, always=always_kept(model.config.to_dict())
    )
    ids = torch.tensor([tokenizer.encode(texts[0]).ids])
    with torch.inference_mode():
        before = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    prune_embedding(model, kept)
    write_tokenizer(spec, kept, out)
    save_model(model, out, tokenizer_from=out, edits=settle(model))
    again, new = load_classifier(out), AutoTokenizer.from_pretrained(out)
    assert again.config.pad_token_id == 1 and len(kept) < count
    encoded = new(texts[0], return_tensors="pt")
    assert new.convert_ids_to_tokens(encoded["input_ids"][0]) == tokenizer.encode(texts[0]).tokens
    with torch.inference_mode():
        torch.testing.assert_close(again(**encoded).logits, before)


def test_special_tokens_are_found_where_no_text_has_an_a(tiny: Callable[..., Path], tmp_path: Path) -> None:
    spec = bpe(["бв бв"], byte_level=False)
    spec["model"]["unk_token"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    assert not Tokenizer.from_str(json.dumps(spec)).encode("a").ids
    assert special_tokens(tmp_path) == ([], [])
    ids = Tokenizer.from_file(str((folder := tiny("bert")) / "tokenizer.json"))
    assert special_tokens(folder) == ([ids.token_to_id("[CLS]")], [ids.token_to_id("[SEP]")])
