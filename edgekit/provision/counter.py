"""qemu's plugin that counts instructions (`count.c`), compiled by this machine's compiler."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from edgekit.errors import DeviceError
from edgekit.provision.start import run_code

__all__ = ["LIBRARY", "SOURCE", "build"]

SOURCE = Path(__file__).parent / "count.c"
LIBRARY = "count.so"
MARKED = """
import contextlib, os
for number in (-77001, -77002):
    with contextlib.suppress(OSError):
        os.close(number)
"""


def build(folder: Path, work: Path, command: Callable[[tuple[str, str]], list[str]]) -> str:
    """Compile it into `folder` and try it; why this qemu takes it not, or "".

    `command`: how Python starts under qemu with a plugin and the file that it writes. Raises DeviceError where the
    compiler fails.
    """
    library, out = work / LIBRARY, work / "counted.txt"
    options = ["-shared", "-fPIC", "-O2", "-fvisibility=hidden"]
    compiler = ["cc", *options, "-o", str(library), str(SOURCE)]
    done = subprocess.run(compiler, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line]
        raise DeviceError(f"cc cannot compile {SOURCE.name}: {' '.join(lines[:2])}", hint="apt-get install libc6-dev")
    tried = run_code(command((str(library), str(out))), MARKED)
    if tried.returncode or not out.is_file() or not out.read_text(encoding="utf-8").strip().isdecimal():
        return (tried.stderr.strip().splitlines() or ["it counts nothing"])[-1]
    folder.mkdir()
    library.rename(folder / LIBRARY)
    return ""
