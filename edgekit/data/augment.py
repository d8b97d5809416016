"""Altered copies of texts: more questions for a teacher to answer, where a task has little text of its own."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Literal

from edgekit.data.table import Table

__all__ = ["SHARE", "Draw", "altered"]

Draw = Literal["by_use", "by_word"]
DROP = 0.1  # probability that a word is left out
SHARE = 0.1  # probability that it becomes another word


def altered(
    table: Table, copies: int, seed: int, *, share: float = SHARE, draw: Draw = "by_use", more: Table | None = None
) -> Table:
    """`copies` unlabeled copies of every row, with words dropped and a `share` of them swapped at random.

    After the masking of Tang et al. (arXiv 1903.12136), with words of the data in place of a mask token, which the
    teacher never saw while it was fine-tuned. `by_use` draws a word as often as the table has it; `by_word` each word
    of the table and of `more` alike, capitalized ones for capitalized ones, and so mostly names and rare words.
    """
    generator = random.Random(seed)
    known = _words(table)
    kinds = None if draw == "by_use" else _by_case({*known, *(_words(more) if more else ())})

    def others(word: str) -> Sequence[str]:
        return known if kinds is None else kinds[word[0].isupper()]

    def alter(text: str) -> str:
        kept = [word for word in text.split() if generator.random() >= DROP]
        changed = [generator.choice(others(word)) if generator.random() < share else word for word in kept]
        return " ".join(changed) or text

    texts = tuple(alter(text) for _ in range(copies) for text in table.texts)
    pairs = tuple(alter(text) for _ in range(copies) for text in table.pairs) if table.pairs else None
    return Table(texts, pairs, None, f"{table.name}, altered", table.label_kind)


def _words(table: Table) -> list[str]:
    return [word for text in table.all_texts() for word in text.split()]


def _by_case(words: Iterable[str]) -> dict[bool, list[str]]:
    """By whether they begin with a capital letter; in one order, whatever the hash seed."""
    kinds: dict[bool, list[str]] = {True: [], False: []}
    for word in sorted(words):
        kinds[word[0].isupper()].append(word)
    return kinds
