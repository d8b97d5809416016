"""This machine, described: what a figure was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

from edgekit.artifact import Frozen, library_versions

__all__ = ["Machine", "default_threads", "describe", "physical_cores"]

LIBRARIES = ("edgekit", "numpy", "onnxruntime", "llama-cpp-python", "torch", "transformers", "tokenizers")
# Instruction sets that decide which int8, bf16 and fp32 kernels a runtime may take (names as /proc/cpuinfo has them).
ISA = (
    *("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)
MAX_THREADS = 4  # beyond four cores a small encoder at batch 1 waits more than it computes


class Machine(Frozen):
    """What a measurement depends on. `load`: load averages over 1, 5 and 15 minutes when it was described."""

    cpu: str
    arch: str
    cores: int
    logical_cores: int
    memory_bytes: int
    isa: tuple[str, ...]
    system: str
    python: str
    libraries: dict[str, str]
    load: tuple[float, float, float] | None = None

    @property
    def int8_dot(self) -> bool:
        """Whether the processor multiplies and adds int8 in one instruction (VNNI, AMX, Arm dotprod)."""
        return bool({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"} & set(self.isa))


def describe() -> Machine:
    """The machine this runs on. Nothing raises: what cannot be read is empty or zero."""
    import psutil

    return Machine(
        cpu=_cpuinfo()[0],
        arch=platform.machine(),
        cores=physical_cores(),
        logical_cores=os.cpu_count() or 1,
        memory_bytes=int(psutil.virtual_memory().total),
        isa=_cpuinfo()[1],
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        libraries=library_versions(LIBRARIES),
        load=_load(),
    )


def physical_cores() -> int:
    """Physical cores that this process may use (hyper-threads counted once, affinity respected)."""
    import psutil

    physical = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, allowed))


def default_threads() -> int:
    """Threads of an inference unless the user says otherwise: the physical cores, at most four."""
    return min(physical_cores(), MAX_THREADS)


def _load() -> tuple[float, float, float] | None:
    return os.getloadavg() if hasattr(os, "getloadavg") else None


@cache
def _cpuinfo() -> tuple[str, tuple[str, ...]]:
    """Processor name and instruction sets of interest."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return _name_without_proc(), ()
    fields: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip().lower(), value.strip())
    flags = set((fields.get("flags") or fields.get("features") or "").split())
    name = fields.get("model name") or fields.get("hardware") or fields.get("cpu part") or platform.processor()
    return name or platform.machine(), tuple(flag for flag in ISA if flag in flags)


def _name_without_proc() -> str:
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        if found:
            return found
    return platform.processor() or platform.machine()
