"""Altered copies of texts: more questions for a teacher to answer, where a task has little text of its own."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from typing import Literal

from edgekit.data.table import Table

__all__ = ["SHARE", "Draw", "altered"]

Draw = Literal["by_use", "by_word"]
DROP = 0.1  # probability that a word is left out
SHARE = 0.1  # probability that it becomes another word
AROUND = re.compile(r"^\W+|\W+$")


def altered(
    table: Table, copies: int, seed: int, *, share: float = SHARE, draw: Draw = "by_use", more: Table | None = None
) -> Table:
    """`copies` unlabeled copies of every row, with words dropped and a `share` of them swapped at random.

    After the masking of Tang et al. (arXiv 1903.12136), with words of the data in place of a mask token, which the
    teacher never saw while it was fine-tuned. `by_use` draws a word as often as the table has it; `by_word` each word
    of the table and of `more` alike, capitalized ones for capitalized ones, and so mostly names and rare words. Words
    of `more` are taken without the punctuation around them, and none that is longer than the table's longest: in a
    script without spaces, a word would be a sentence.
    """
    generator = random.Random(seed)
    known = list(_words(table))
    kinds = (
        None if draw == "by_use" else _by_case({*known, *_bare_words(more, longest=max(map(len, known), default=0))})
    )

    def others(word: str) -> Sequence[str]:
        return known if kinds is None else kinds[_capitalized(word)]

    def alter(text: str) -> str:
        kept = [word for word in text.split() if generator.random() >= DROP]
        changed = [generator.choice(others(word)) if generator.random() < share else word for word in kept]
        return " ".join(changed) or text

    texts = tuple(alter(text) for _ in range(copies) for text in table.texts)
    pairs = tuple(alter(text) for _ in range(copies) for text in table.pairs) if table.pairs else None
    return Table(texts, pairs, None, f"{table.name}, altered", table.label_kind)


def _words(table: Table) -> Iterator[str]:
    return (word for text in table.all_texts() for word in text.split())


def _bare_words(table: Table | None, longest: int) -> Iterator[str]:
    bare = (AROUND.sub("", word) for word in (_words(table) if table else ()))
    return (word for word in bare if 0 < len(word) <= longest)


def _by_case(words: set[str]) -> dict[bool, list[str]]:
    """By whether they are capitalized; in one order, whatever the hash seed."""
    kinds: dict[bool, list[str]] = {True: [], False: []}
    for word in sorted(words):
        kinds[_capitalized(word)].append(word)
    return kinds


def _capitalized(word: str) -> bool:
    """As `recase` reads it: whatever punctuation stands before the first letter."""
    return next((letter.isupper() for letter in word if letter.isalnum()), False)
