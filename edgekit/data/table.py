"""A data set in memory: texts (or pairs of texts, or pictures) and, where there are any, labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from edgekit.digest import digest_json

__all__ = ["LabelKind", "SplitName", "Table"]

SplitName = Literal["train", "validation", "test", "unlabeled"]
# What a label is: a name; the names of a text's words with a space between; the answers that stand in a context (JSON:
# [[text, its first character], ...], -1 for one that does not stand there); how alike a pair is, a number; or a text:
# the reference answer.
LabelKind = Literal["class", "words", "answers", "score", "text"]


@dataclass(frozen=True)
class Table:
    """`texts[i]`, `pairs[i]` (second text; None for single texts), `labels[i]` ("" for a row without; None: all are).

    Where labels are of words, a text is its words with one space between. Of pictures a text is the sha256 of the file;
    `pictures` says where that is, or holds its bytes.
    """

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    name: str = "data"
    label_kind: LabelKind = "class"
    pictures: Mapping[str, Path | bytes] = field(default_factory=dict, repr=False, hash=False, compare=False)

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def classes(self) -> frozenset[str]:
        """The label names that occur, of answers, scores and texts none; of words with B- of a type also I-, and the
        other way round."""
        if self.label_kind in ("answers", "score", "text"):
            return frozenset()
        labels = [label for label in self.labels or () if label]
        if self.label_kind == "class":
            return frozenset(labels)
        names = {name for label in labels for name in label.split(" ")}
        return frozenset(names | {f"{tag}-{name[2:]}" for tag in "BI" for name in names if name[1:2] == "-"})

    @cached_property
    def digest(self) -> str:
        """sha256 of the contents (not of the file: a csv and a parquet with the same rows are the same data)."""
        return digest_json(
            {
                "texts": list(self.texts),
                "pairs": list(self.pairs) if self.pairs else None,
                "labels": list(self.labels) if self.labels else None,
            }
        )

    def take(self, rows: Iterable[int]) -> Table:
        """The rows with these numbers, in this order."""
        chosen = list(rows)
        return replace(
            self,
            texts=tuple(self.texts[r] for r in chosen),
            pairs=tuple(self.pairs[r] for r in chosen) if self.pairs else None,
            labels=tuple(self.labels[r] for r in chosen) if self.labels else None,
        )

    def head(self, count: int) -> Table:
        """The first `count` rows (all where there are fewer)."""
        return self.take(range(min(count, len(self))))

    def spread(self, count: int) -> Table:
        """About `count` rows, evenly spaced: a file may be sorted by label."""
        step = max(1, len(self) // count)
        return self.take(range(0, min(len(self), step * count), step))

    def one_by_one(self) -> Table:
        """All first texts, then all second ones, each a row of its own, without labels."""
        return Table(tuple(self.all_texts()), None, None, self.name)

    def all_texts(self) -> list[str]:
        """First and second texts, one list: what a vocabulary or a calibration sees."""
        return [*self.texts, *(self.pairs or ())]
