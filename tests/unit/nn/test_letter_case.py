"""A tokenizer with letter case splits every text as the one without does."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from edgekit.errors import StageError
from edgekit.nn.letter_case import give_case
from edgekit.nn.vocabulary import MARK, choose_tokens, rewrite, seen_tokens, tokens_of

Spec = dict[str, Any]
PIECES = ["paris", "par", "is", "new", "york", "elf", "##lan", "##an", "##aris", "##is", "о", "☆", "中", "4"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyzß_'.,-", *(f"##{letter}" for letter in "abcdefghijklmnopqrsxyz4")]
PLACES = st.sampled_from(
    [*" \t\n\u00a0\u200b\u0301.,'-_$+^`|~☆中😀4аАßẞŁłİıǅÉΣ", "Paris", "PARIS", "New", "York", "elan"]
)
TEXT = st.one_of(st.text(max_size=30), st.lists(PLACES, max_size=14).map("".join))


def wordpiece(*, strip: bool | None = None, lowercase: bool = True) -> Spec:
    tokens = dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", *PIECES, *LETTERS])
    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=strip, lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]"])
    spec: Spec = json.loads(tokenizer.to_str())
    return spec


PLAIN = {strip: wordpiece(strip=strip) for strip in (None, False)}
CASED = {strip: give_case(spec).spec for strip, spec in PLAIN.items()}


def pieces(spec: Spec, text: str) -> list[str]:
    return Tokenizer.from_str(json.dumps(spec)).encode(text, add_special_tokens=False).tokens


@pytest.mark.parametrize("strip", PLAIN)
@example(text="x" * 99 + " " + "X" + "x" * 99)  # a word of 100 letters is the longest that is split at all
@given(text=TEXT.filter(lambda text: MARK not in text))
def test_every_text_is_split_at_the_same_places(strip: bool | None, text: str) -> None:
    plain, cased = (Tokenizer.from_str(json.dumps(spec)).encode(text) for spec in (PLAIN[strip], CASED[strip]))
    assert [token.removeprefix(MARK) for token in cased.tokens] == plain.tokens
    assert cased.offsets == plain.offsets
    assert cased.word_ids == plain.word_ids


def test_words_with_a_capital_letter_are_marked() -> None:
    cased = CASED[None]
    assert pieces(cased, "Paris is New, _York") == ["ˇparis", "is", "ˇnew", ",", "_", "ˇyork"]
    assert pieces(cased, "Élan PARIS newYork") == ["ˇe", "##lan", "ˇparis", "new", "##y", "##o", "##r", "##k"]
    assert pieces(cased, "paris 4Paris [CLS]") == ["paris", "4", "##p", "##aris", "[CLS]"]  # the 4 starts the word


def without(spec: Spec, *tokens: str) -> Spec:
    """With holes where their ids were."""
    left = json.loads(json.dumps(spec))
    for token in tokens:
        del left["model"]["vocab"][token]
    return left


def with_added(token: str, *, normalized: bool) -> Spec:
    tokenizer = Tokenizer.from_str(json.dumps(PLAIN[None]))
    tokenizer.add_tokens([AddedToken(token, normalized=normalized)])
    spec: Spec = json.loads(tokenizer.to_str())
    return spec


@pytest.mark.parametrize(
    "plain", [PLAIN[None], without(PLAIN[None], "new", "##z"), with_added("[ENT]", normalized=False)]
)
def test_each_new_token_starts_from_its_own_without_a_mark(plain: Spec) -> None:
    cased = give_case(plain)
    names = {i: token for token, i in tokens_of(cased.spec).items()}
    assert {names.get(i) for i in range(cased.first)} - {None} == set(tokens_of(plain))  # the old ids stay
    assert [names[cased.first + place] for place in range(len(cased.origins))] == [
        MARK + names[origin] for origin in cased.origins
    ]
    loaded = Tokenizer.from_str(json.dumps(cased.spec))
    assert cased.size == max(loaded.get_vocab().values()) + 1
    assert {token: loaded.token_to_id(token) for token in tokens_of(plain)} == tokens_of(plain)


def test_a_pruned_vocabulary_spells_capitalized_words_still() -> None:
    """As all letters stay, so do they with a mark: "Yx" was never seen."""
    cased = CASED[None]
    kept = choose_tokens(cased, seen_tokens(cased, ["paris"]), keep="data+pieces", min_count=1, common=0, always=())
    assert pieces(rewrite(cased, kept), "Yx Paris") == ["ˇy", "##x", "ˇp", "##a", "##r", "##i", "##s"]


def test_a_marked_token_is_as_common_as_without_its_mark() -> None:
    plain, cased = PLAIN[None], CASED[None]
    common = tokens_of(plain)["york"] + 1
    kept = choose_tokens(cased, seen_tokens(cased, []), keep="data", min_count=1, common=common, always=())
    assert pieces(rewrite(cased, kept), "York Elf") == ["ˇyork", "[UNK]"]


def changed(change: Callable[[Spec], object]) -> Spec:
    spec = wordpiece()
    change(spec)
    return spec


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        (wordpiece(lowercase=False), "tells letter case already"),
        (CASED[None], "tells letter case already"),
        (changed(lambda spec: spec.update(pre_tokenizer={"type": "Whitespace"})), "WordPiece with others"),
        (changed(lambda spec: spec.update(normalizer=None)), "WordPiece with others"),
        (json.loads(Tokenizer(models.BPE()).to_str()), "this one is BPE"),
        (changed(lambda spec: spec["model"].update(vocab={"[UNK]": 0, "我": 1, "很": 2})), "letter that has a capital"),
        (with_added("covid", normalized=True), "looked for in normalized text"),
    ],
)
def test_other_tokenizers_are_refused(spec: Spec, what: str) -> None:
    with pytest.raises(StageError, match=what):
        give_case(spec)
