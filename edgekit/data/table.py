"""A data set in memory: texts (or pairs of texts) and, where there are any, label names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from edgekit.digest import digest_json

__all__ = ["Table"]


@dataclass(frozen=True)
class Table:
    """`texts[i]`, `pairs[i]` (second text, or None for single texts), `labels[i]` (label name, or None if unlabeled)."""

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    name: str = "data"

    def __len__(self) -> int:
        return len(self.texts)

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

    def head(self, count: int) -> Table:
        """The first `count` rows."""
        return Table(
            self.texts[:count],
            self.pairs[:count] if self.pairs else None,
            self.labels[:count] if self.labels else None,
            self.name,
        )

    def all_texts(self) -> list[str]:
        """First and second texts, one list: what a vocabulary or a calibration sees."""
        return [*self.texts, *(self.pairs or ())]
