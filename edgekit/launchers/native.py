"""Python as it is on the machine."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.jobs import Place
from edgekit.launchers.base import Measured

__all__ = ["Native"]


@dataclass(frozen=True)
class Native(Measured):
    """The interpreter `python`: a path, or a name that the machine's shell finds. `arguments` go before the script."""

    python: str = "python3"
    arguments: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return "native"

    def command(self, place: Place) -> list[str]:
        return [self.python, *self.arguments]
