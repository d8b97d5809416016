"""This machine, described: what a figure was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

from edgekit.artifact import Frozen, library_versions

__all__ = ["Machine", "default_threads", "describe", "physical_cores", "physical_in", "processor"]

LIBRARIES = ("edgekit", "numpy", "onnxruntime", "llama-cpp-python", "openvino", "torch", "transformers", "tokenizers")
# Instruction sets that decide which int8, bf16 and fp32 kernels a runtime may take (names as /proc/cpuinfo has them).
ISA = (
    *("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)
ARM = "0x41"  # implementer, in /proc/cpuinfo
ARM_CORES = {  # part numbers, from Arm's technical reference manuals (MIDR_EL1)
    "0xc07": "cortex-a7",
    "0xc0f": "cortex-a15",
    "0xd03": "cortex-a53",
    "0xd04": "cortex-a35",
    "0xd05": "cortex-a55",
    "0xd07": "cortex-a57",
    "0xd08": "cortex-a72",
    "0xd09": "cortex-a73",
    "0xd0a": "cortex-a75",
    "0xd0b": "cortex-a76",
    "0xd0c": "neoverse-n1",
    "0xd0d": "cortex-a77",
    "0xd40": "neoverse-v1",
    "0xd41": "cortex-a78",
    "0xd44": "cortex-x1",
    "0xd46": "cortex-a510",
    "0xd47": "cortex-a710",
    "0xd48": "cortex-x2",
    "0xd49": "neoverse-n2",
    "0xd4d": "cortex-a715",
    "0xd4e": "cortex-x3",
    "0xd4f": "neoverse-v2",
    "0xd80": "cortex-a520",
    "0xd81": "cortex-a720",
    "0xd82": "cortex-x4",
}
MAX_THREADS = 4  # beyond four cores a small encoder at batch 1 waits more than it computes


class Machine(Frozen):
    """What a measurement depends on. `load`: load averages over 1, 5 and 15 minutes when it was described; `governor`
    (of the first core's clock) and `temperature_c` (°C, near the cores) where they can be read."""

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
    governor: str = ""
    temperature_c: float | None = None

    @property
    def int8_dot(self) -> bool:
        """Whether the processor multiplies and adds int8 in one instruction (VNNI, AMX, Arm dotprod)."""
        return bool({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"} & set(self.isa))


def describe() -> Machine:
    """The machine this runs on. Nothing raises: what cannot be read is empty or zero."""
    import psutil

    cpu, isa = _processor_here()
    return Machine(
        cpu=cpu,
        arch=platform.machine(),
        cores=physical_cores(),
        logical_cores=os.cpu_count() or 1,
        memory_bytes=int(psutil.virtual_memory().total),
        isa=isa,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        libraries=library_versions(LIBRARIES),
        load=_load(),
        governor=_governor(),
        temperature_c=_temperature(),
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


def _governor() -> str:
    with suppress(OSError):
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text(encoding="ascii").strip()
    return ""


def _temperature() -> float | None:
    import psutil

    if not hasattr(psutil, "sensors_temperatures"):  # Linux and FreeBSD have it
        return None
    found = psutil.sensors_temperatures()
    near = next((found[name] for name in ("coretemp", "k10temp", "cpu_thermal", "soc_thermal") if name in found), [])
    return max((sensor.current for sensor in near), default=None)


@cache
def _processor_here() -> tuple[str, tuple[str, ...]]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return _name_without_proc(), ()
    name, isa = processor(path.read_text(encoding="utf-8", errors="replace"))
    return name or platform.processor() or platform.machine(), isa


def processor(cpuinfo: str) -> tuple[str, tuple[str, ...]]:
    """Name (of Arm cores: each kind's, as compilers call them) and instruction sets of interest, from the text of
    /proc/cpuinfo. The name is empty where the text has none."""
    blocks = _blocks(cpuinfo)
    fields = {name: value for block in reversed(blocks) for name, value in block.items()}
    flags = set((fields.get("flags") or fields.get("features") or "").split())
    parts = dict.fromkeys(
        ARM_CORES[block["cpu part"]]
        for block in blocks
        if block.get("cpu implementer") == ARM and block.get("cpu part") in ARM_CORES
    )
    name = " + ".join(parts) or fields.get("model name") or fields.get("hardware") or fields.get("cpu part")
    return name or "", tuple(flag for flag in ISA if flag in flags)


def physical_in(cpuinfo: str) -> int:
    """Physical cores in the text of /proc/cpuinfo; 0 where it does not tell (Arm: each is one)."""
    blocks = _blocks(cpuinfo)
    return len(
        {(block["physical id"], block["core id"]) for block in blocks if {"physical id", "core id"} <= set(block)}
    )


def _blocks(cpuinfo: str) -> list[dict[str, str]]:
    """One block of names (in small letters) and values per logical core, and what stands apart from them."""
    lines = ([line.partition(":") for line in block.splitlines()] for block in cpuinfo.split("\n\n"))
    return [{name.strip().lower(): value.strip() for name, _, value in block} for block in lines]


def _name_without_proc() -> str:
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        if found:
            return found
    return platform.processor() or platform.machine()
