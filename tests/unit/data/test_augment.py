from __future__ import annotations

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
