"""Ending a training between two steps, as a kill would."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edgekit.progress import Silent


class KilledError(Exception):
    pass


class KillAfter(Silent):
    """Raises when the training loop asks for step number `steps`."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def track(self, items: Iterable[object], label: str, total: int | None = None) -> Iterator[object]:  # type: ignore[override]
        for number, item in enumerate(items):
            if label == "training" and number == self.steps:
                raise KilledError
            yield item
