"""What a launcher is: how Python is started at a place, and what the numbers it gives are worth."""

from __future__ import annotations

from typing import Protocol

from edgekit.jobs import Fidelity, Place

__all__ = ["Launcher", "Measured"]


class Launcher(Protocol):
    """A way to start Python at a place. `fidelity`: whether times measured under it mean anything."""

    @property
    def name(self) -> str:
        """Short name for reports: "native", or the core that is emulated."""

    @property
    def fidelity(self) -> Fidelity: ...

    def command(self, place: Place) -> list[str]:
        """The command that starts Python; a script and its arguments follow. Brings what it needs to the place."""

    @property
    def counts(self) -> str:
        """Name of the file, in the work's folder, where it leaves instruction counts; "" where it counts nothing."""

    def instructions(self, raw: bytes) -> tuple[int, ...]:
        """Instructions of each marked inference, from that file."""


class Measured:
    """What launchers share where the processor is a real one: times mean something, and nothing is counted."""

    @property
    def fidelity(self) -> Fidelity:
        return "measured"

    @property
    def counts(self) -> str:
        return ""

    def instructions(self, raw: bytes) -> tuple[int, ...]:
        return ()
