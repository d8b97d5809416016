"""Altered copies of texts: more questions for a teacher to answer, where a task has little text of its own."""

from __future__ import annotations

import random

from edgekit.data.table import Table

__all__ = ["altered"]

DROP = 0.1  # probability that a word is left out
SWAP = 0.1  # probability that it becomes another word of the table, drawn as often as the table has it


def altered(table: Table, copies: int, seed: int) -> Table:
    """`copies` unlabeled copies of every row, with words dropped and swapped at random.

    After the masking of Tang et al. (arXiv 1903.12136), with words of the data in place of a mask token, which the
    teacher never saw while it was fine-tuned.
    """
    generator = random.Random(seed)
    words = [word for text in table.all_texts() for word in text.split()]

    def alter(text: str) -> str:
        kept = [word for word in text.split() if generator.random() >= DROP]
        changed = [generator.choice(words) if generator.random() < SWAP else word for word in kept]
        return " ".join(changed) or text

    texts = tuple(alter(text) for _ in range(copies) for text in table.texts)
    pairs = tuple(alter(text) for _ in range(copies) for text in table.pairs) if table.pairs else None
    return Table(texts, pairs, None, f"{table.name}, altered", table.label_kind)
