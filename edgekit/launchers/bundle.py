"""Python for an arm64 Linux machine that has none, such as a phone: it is pushed along with all its libraries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.jobs import Fidelity, Place
from edgekit.provision.arm64 import find
from edgekit.provision.cache import cache_root
from edgekit.provision.start import native

__all__ = ["Bundle"]


@dataclass(frozen=True)
class Bundle:
    """The arm64 bundle, started by its own loader. `cache`: where `provision.arm64` prepared it."""

    cache: Path | None = None

    @property
    def name(self) -> str:
        return "bundle"

    @property
    def fidelity(self) -> Fidelity:
        return "measured"

    def command(self, place: Place) -> list[str]:
        """See `Launcher.command`. Raises DeviceError where the bundle is not prepared."""
        found = find(self.cache or cache_root())
        return native(place.bundle(*found.folder("bundle")), found.python)

    @property
    def counts(self) -> str:
        return ""

    def instructions(self, raw: bytes) -> tuple[int, ...]:
        return ()
