"""The Arm cores that are emulated, and the /proc/cpuinfo that goes with each.

Runtimes choose their kernels by that file: the host's makes them crash, and another core's makes them run instructions
that this one lacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

__all__ = ["CORES", "Core", "Profile", "write_profiles"]

Core = Literal["cortex-a53", "cortex-a72", "cortex-a76"]
V8_0 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
V8_2 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs"


@dataclass(frozen=True)
class Profile:
    """A core as Linux describes it: numbers of its MIDR register, and the features that programs may use."""

    part: str
    variant: str
    revision: int
    features: str

    @property
    def cpuinfo(self) -> str:
        """/proc/cpuinfo of a machine with one such core."""
        lines = {
            "processor": "0",
            "BogoMIPS": "48.00",
            "Features": self.features,
            "CPU implementer": "0x41",  # Arm
            "CPU architecture": "8",
            "CPU variant": self.variant,
            "CPU part": self.part,
            "CPU revision": str(self.revision),
        }
        return "".join(f"{name}\t: {value}\n" for name, value in lines.items()) + "\n"


CORES: Final[dict[Core, Profile]] = {
    "cortex-a53": Profile("0xd03", "0x0", 4, V8_0),
    "cortex-a72": Profile("0xd08", "0x0", 3, V8_0),
    "cortex-a76": Profile("0xd0b", "0x4", 1, V8_2),
}
assert set(CORES) == set(get_args(Core))


def write_profiles(folder: Path) -> None:
    """`CORE/proc/cpuinfo` for every core: a folder for qemu's `-L`, which looks there before it looks at the host."""
    for core, profile in CORES.items():
        path = folder / core / "proc" / "cpuinfo"
        path.parent.mkdir(parents=True)
        path.write_text(profile.cpuinfo, encoding="utf-8")
