"""What a stage may tell while it works. The command line draws it with rich; tests and the API may stay silent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

__all__ = ["Progress", "Silent"]

T = TypeVar("T")


class Progress(Protocol):
    """Follow a loop, say a line, begin a step."""

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """Yield `items`, showing how far and how long."""

    def say(self, text: str) -> None:
        """One line for the person who watches."""

    def head(self, text: str) -> None:
        """A line that stands out: a step begins."""


class Silent:
    """Says nothing."""

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        yield from items

    def say(self, text: str) -> None:
        return None

    def head(self, text: str) -> None:
        return None
