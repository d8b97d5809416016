"""Reads what the machine is: `python probe_worker.py JOB.json RESULT.json`. JOB.json: {"packages": [name]}.

RESULT.json: {"arch", "system", "python", "cpuinfo": text of /proc/cpuinfo, "logical_cores", "allowed_cores",
"memory_bytes", "governor", "temperature_c": float|null, "load": [three]|null, "packages": {name: version|"absent"}}.
What cannot be read is empty, zero or null. Only the standard library is needed.
"""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harness import answer

CPU_ZONES = ("cpu", "soc", "pkg", "core", "tsens")  # in the names of thermal zones near the cores
PLAUSIBLE = (-40.0, 150.0)  # °C; a sensor that is not there says 0 K or the like


def read(path: str | Path) -> str:
    """A file's text, stripped; empty where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def memory_bytes() -> int:
    for line in read("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def temperature() -> float | None:
    """The hottest zone near the cores in °C, or of all zones where none is named after them."""
    zones: list[tuple[bool, float]] = []
    for zone in Path("/sys/class/thermal").glob("thermal_zone*"):
        kind, value = read(zone / "type").lower(), read(zone / "temp")
        if value.lstrip("-").isdigit() and PLAUSIBLE[0] < int(value) / 1000 < PLAUSIBLE[1]:
            zones.append((any(word in kind for word in CPU_ZONES), int(value) / 1000))
    return max(zones)[1] if zones else None


def load() -> list[float] | None:
    try:
        return list(os.getloadavg())
    except OSError:
        return None


def packages(names: list[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Do the job; the content of RESULT.json."""
    return {
        "arch": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cpuinfo": read("/proc/cpuinfo"),
        "logical_cores": os.cpu_count() or 1,
        "allowed_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_bytes": memory_bytes(),
        "governor": read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "temperature_c": temperature(),
        "load": load(),
        "packages": packages(job["packages"]),
    }


if __name__ == "__main__":
    answer(work, sys.argv[1], sys.argv[2])
