"""Python as an Arm core has it, under qemu-user: right answers and instruction counts, meaningless times."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import DeviceError
from edgekit.jobs import Fidelity, Place
from edgekit.provision.arm64 import find
from edgekit.provision.cache import cache_root
from edgekit.provision.cores import Core
from edgekit.provision.counter import LIBRARY
from edgekit.provision.start import QEMU, emulated

__all__ = ["Qemu"]

COUNTS = "instructions.txt"


@dataclass(frozen=True)
class Qemu:
    """The core `core`, on an x86 Linux machine with the program `qemu`. Single jobs only: times mean nothing, so there
    is nothing to take turns for. `cache`: where `provision.arm64` prepared what it needs; `count`: whether instructions
    are counted, where this machine's qemu can."""

    core: Core
    cache: Path | None = None
    qemu: str = QEMU
    count: bool = True

    @property
    def name(self) -> str:
        return self.core

    @property
    def fidelity(self) -> Fidelity:
        return "emulated"

    def command(self, place: Place) -> list[str]:
        """See `Launcher.command`. Raises DeviceError where the bundle is not prepared."""
        found = find(self.cache or cache_root())
        cores, bundle = place.bundle(*found.folder("cores")), place.bundle(*found.folder("bundle"))
        counter = None
        if self.count and found.counts:
            counter = f"{place.bundle(*found.folder('counter'))}/{LIBRARY}", f"{place.folder()}/{COUNTS}"
        return emulated(self.core, cores, bundle, found.python, counter, self.qemu)

    @property
    def counts(self) -> str:
        return COUNTS if self.count else ""

    def instructions(self, raw: bytes) -> tuple[int, ...]:
        """See `Launcher.instructions`. Raises DeviceError for a file that holds anything but counts."""
        try:
            return tuple(int(line) for line in raw.split())
        except ValueError:
            raise DeviceError(f"{COUNTS}: broken ({raw[:40]!r})") from None
