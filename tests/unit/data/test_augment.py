from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from edgekit.data.augment import altered
from edgekit.data.table import Table

TEXTS = st.lists(st.text("abc ", min_size=1).filter(str.strip), min_size=1, max_size=8)


@given(TEXTS, st.integers(1, 3), st.integers(0, 5))
def test_copies_use_only_words_of_the_table_and_are_never_empty(texts: list[str], copies: int, seed: int) -> None:
    table = Table(tuple(texts), labels=tuple("x" for _ in texts))
    found = altered(table, copies, seed)
    known = {word for text in texts for word in text.split()}
    assert len(found) == copies * len(texts)
    assert found.labels is None
    assert all(set(text.split()) <= known and text.strip() for text in found.texts)
    assert found == altered(table, copies, seed)


def test_texts_do_change() -> None:
    table = Table(tuple(f"word{i} in the middle of row number {i}" for i in range(50)))
    found = altered(table, 1, 0)
    assert sum(a != b for a, b in zip(table.texts, found.texts, strict=True)) > 30


def test_pairs_stay_pairs() -> None:
    found = altered(Table(("a b", "c d"), ("e f", "g h")), 2, 0)
    assert found.pairs is not None
    assert len(found.pairs) == 4


def test_every_word_is_drawn_alike_by_word_and_capitalized_ones_for_capitalized_ones() -> None:
    table = Table(tuple(f"the the the the Paris the the {word}" for word in ("cat", "dog")))
    more = Table(("a heron saw Oslo and Rome",), ("and Lima",))
    found = altered(table, 200, 0, share=1.0, draw="by_word", more=more)
    counts = Counter(word for text in found.texts for word in text.split())
    small, capital = ("the", "cat", "dog", "a", "heron", "saw", "and"), ("Paris", "Oslo", "Rome", "Lima")
    assert set(counts) == {*small, *capital}
    assert max(counts[word] for word in small) < 1.5 * min(counts[word] for word in small)
    assert sum(counts[word] for word in capital) < sum(counts[word] for word in small) / 4  # one word in eight was


def test_by_use_draws_as_often_as_the_table_has_a_word() -> None:
    table = Table(("the the the the the the the cat",))
    counts = Counter(word for text in altered(table, 300, 0, share=1.0).texts for word in text.split())
    assert counts["the"] > 4 * counts["cat"] > 0


def test_nothing_is_swapped_at_a_share_of_none() -> None:
    table = Table(("a b c d e f g h",))
    found = altered(table, 50, 0, share=0.0, draw="by_word")
    assert all(sorted(text.split()) == text.split() for text in found.texts)


def test_a_seed_always_draws_the_same() -> None:
    """Whatever order a set has in this process: a teacher's answers on disk are of these texts."""
    table = Table(("the card of Anna is lost in Paris today", "where did the money of Bob go"))
    found = altered(table, 1, 0, share=0.5, draw="by_word", more=Table(("Oslo and Rome, a heron!",)))
    assert found.texts == ("the card of Anna is lost in Paris today", "where did the where of Rome go")


def test_the_share_is_that_of_words_that_change() -> None:
    table = Table(("a " * 4000,))
    found = altered(table, 1, 0, share=0.4, draw="by_word", more=Table((" ".join(f"{i}" for i in range(10)),)))
    words = found.texts[0].split()
    assert 0.34 < sum(word != "a" for word in words) / len(words) < 0.4  # one in eleven stays "a"


def test_capitals_behind_punctuation_and_bare_words() -> None:
    table = Table(('word "Paris word',))
    found = altered(table, 100, 0, share=1.0, draw="by_word", more=Table(("(Rome), @Oslo; heron. -- don't",)))
    words = {word for text in found.texts for word in text.split()}
    assert words == {"word", '"Paris', "Rome", "Oslo", "heron", "don't"}
    assert all(text.split()[1] in ('"Paris', "Rome", "Oslo") for text in found.texts if len(text.split()) == 3)


def test_a_sentence_without_spaces_is_no_word() -> None:
    table = Table(("我 的 卡 丢 了",))
    found = altered(table, 20, 0, share=1.0, draw="by_word", more=Table(("请问我的卡在哪里", "钱")))
    assert {word for text in found.texts for word in text.split()} <= {*"我的卡丢了钱"}


def test_odd_tables_give_as_many_copies() -> None:
    for texts, more in (((" ",), None), (("a",), Table((" ", "!?"))), (("!", "A"), Table(())), ((), Table(("a",)))):
        assert len(altered(Table(texts), 2, 0, share=1.0, draw="by_word", more=more)) == 2 * len(texts)
