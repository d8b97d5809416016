"""Python for an arm64 Linux machine that has none, such as a phone: it is pushed along with all its libraries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.jobs import Place
from edgekit.launchers.base import Measured
from edgekit.provision.arm64 import find
from edgekit.provision.cache import cache_root
from edgekit.provision.start import native

__all__ = ["Bundle"]


@dataclass(frozen=True)
class Bundle(Measured):
    """The arm64 bundle, started by its own loader. `cache`: where `provision.arm64` prepared it."""

    cache: Path | None = None

    @property
    def name(self) -> str:
        return "bundle"

    def command(self, place: Place) -> list[str]:
        """See `Launcher.command`. Raises DeviceError where the bundle is not prepared."""
        found = find(self.cache or cache_root())
        return native(place.bundle(*found.folder("bundle")), found.python)
