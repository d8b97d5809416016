from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Encoding, Tokenizer

from edgekit.errors import DataError
from edgekit.tasks.span_metrics import is_chinese, span_scores
from edgekit.tasks.spans import best_span, cut_windows, token_span
from tests.conftest import PIECES, WORDS, bpe_spec, wordpiece_spec

TEXTS = st.text(alphabet="card topμ中国 \n?!", max_size=60)


@cache
def tokenizer(kind: str) -> Tokenizer:
    spec = wordpiece_spec(WORDS + PIECES) if kind == "wordpiece" else bpe_spec([" ".join(WORDS)] * 3)
    return Tokenizer.from_str(json.dumps(spec))


def encode(kind: str, question: str, context: str) -> Encoding:
    return tokenizer(kind).encode(question, context)


@given(TEXTS, TEXTS, st.integers(8, 24), st.integers(0, 16), st.sampled_from(["wordpiece", "bpe"]))
def test_every_token_of_the_context_is_in_some_window(
    question: str, context: str, max_length: int, overlap: int, kind: str
) -> None:
    whole = encode(kind, question, context)
    windows = cut_windows(whole, context, max_length, overlap)
    assert all(len(window.ids) <= max_length for window in windows)
    told = [
        (ids, end - len(context[begin:end].lstrip()))
        for ids, (begin, end), text in zip(whole.ids, whole.offsets, whole.sequence_ids, strict=True)
        if text == 1 and context[begin:end].strip()
    ]
    seen = [pair for window in windows for pair in zip(np.take(window.ids, window.columns), window.begins, strict=True)]
    assert {(int(token), int(begin)) for token, begin in seen} == set(told)


@given(TEXTS, TEXTS, st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_the_best_span_is_the_best_of_all_pairs(question: str, context: str, longest: int, seed: int) -> None:
    windows = cut_windows(encode("wordpiece", question, context), context, 16, 4)
    begins, lasts = (np.unique(np.concatenate([getattr(w, name) for w in windows])) for name in ("begins", "lasts"))
    scores = np.full((len(context), 2), np.nan, dtype=np.float32)
    rng = np.random.default_rng(seed)
    scores[begins, 0], scores[lasts, 1] = rng.normal(size=len(begins)), rng.normal(size=len(lasts))
    start, end = best_span(scores, longest)
    pairs = [
        (scores[b, 0] + scores[e, 1], b, e + 1)
        for b in begins
        for e in lasts
        if b <= e and np.sum((lasts >= b) & (lasts <= e)) <= longest
    ]
    if not pairs:
        assert (start, end) == (0, 0)
    else:
        assert max(pairs)[1:] == (start, end)
        found = context[start:end]
        assert found == found.strip() != ""


def test_a_long_question_takes_at_most_half_of_a_window() -> None:
    context = "card top " * 8
    whole = encode("wordpiece", "where is my money " * 8, context)
    windows = cut_windows(whole, context, 15, 2)
    assert [len(window.ids) for window in windows] == [15, 15, 15, 13]  # 3 special tokens, 6 of each text
    assert [window.types.count(1) for window in windows] == [7, 7, 7, 5]
    assert windows[0].ids[-3:-1] == windows[1].ids[8:10]  # neighbours share 2
    with pytest.raises(DataError, match="no room"):
        cut_windows(whole, context, 4, 2)


def test_token_span_holds_the_answer() -> None:
    begins, lasts = np.array([0, 5, 10]), np.array([3, 8, 13])
    assert token_span(begins, lasts, 5, 9) == (5, 8)
    assert token_span(begins, lasts, 6, 12) == (5, 13)  # from inside of a token
    assert token_span(begins, lasts, 0, 15) is None  # beyond the last token
    assert token_span(begins[1:], lasts[1:], 0, 3) is None


@pytest.mark.parametrize(
    ("right", "found", "f1", "exact"),
    [
        (["The Denver Broncos"], "denver broncos!", 1.0, 1.0),  # articles, case and punctuation do not count
        (["Denver Broncos"], "the Carolina Panthers", 0.0, 0.0),
        (["May 5", "5 May 2001"], "in May 2001", 2 * 2 / 6, 0.0),  # with the nearest of the answers
        (["a b b c"], "b c b", 6 / 6, 0.0),  # of words, wherever they stand; "a" is an article
        (["1,000"], "1000", 1.0, 1.0),
        (["May"], "", 0.0, 0.0),
    ],
)
def test_squad_scores(right: list[str], found: str, f1: float, exact: float) -> None:
    assert span_scores("When was it?", right, found) == pytest.approx((f1, exact))


@pytest.mark.parametrize(
    ("right", "found", "f1", "exact"),
    [
        (["村雨城", "任天堂游戏谜之村雨城"], "《村雨城》", 1.0, 1.0),  # the script leaves this punctuation out
        (["光荣和ω-force"], "光荣和ω-Force", 1.0, 1.0),
        (["光荣和ω-force"], "光荣", 2 * 2 / (4 + 2), 0.0),  # 光, 荣, 和, ωforce
        (["2010年5月"], "5月2010年", 2 * 2 / (4 + 4), 0.0),  # the longest piece that both have, not all of them
        (["北京"], "上海", 0.0, 0.0),
    ],
)
def test_cmrc_scores(right: list[str], found: str, f1: float, exact: float) -> None:
    assert span_scores("株洲北站的前身是哪个车站？", right, found) == pytest.approx((f1, exact))


def test_the_question_says_which_definition_counts() -> None:
    assert is_chinese("iPhone XS Max在哪一年发布？")
    assert not is_chinese("What does 茶 mean in English?")
    assert not is_chinese("")
