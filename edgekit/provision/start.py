"""How the arm64 bundle's Python is started: by its own loader, and that under qemu as one core."""

from __future__ import annotations

import subprocess

from edgekit.errors import DeviceError
from edgekit.provision.cores import Core

__all__ = ["QEMU", "emulated", "native", "run_code"]

QEMU = "qemu-aarch64"
SECONDS = 600.0  # for a few lines of Python under qemu, on a busy machine


def native(bundle: str, python: str) -> tuple[dict[str, str], list[str]]:
    """Environment and command of Python `python` ("3.11") in the folder `bundle`, with the libraries that lie there."""
    environment = {
        "PYTHONHOME": bundle,
        "PYTHONPATH": f"{bundle}/site",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",  # else the order of sets, and with it the number of instructions, is another every time
    }
    loader = f"{bundle}/lib/ld-linux-aarch64.so.1"
    return environment, [loader, "--library-path", f"{bundle}/lib", f"{bundle}/bin/python{python}"]


def emulated(
    core: Core, cores: str, bundle: str, python: str, counter: tuple[str, str] | None = None, qemu: str = QEMU
) -> list[str]:
    """The same under qemu. `cores`: the folder of profiles; `counter`: count.so, and the file that it writes."""
    environment, command = native(bundle, python)
    start = [qemu, "-cpu", core, "-L", f"{cores}/{core}", "-U", "LD_LIBRARY_PATH", "-U", "LD_PRELOAD"]
    for name, value in environment.items():
        start += ["-E", f"{name}={value}"]
    if counter is not None:
        library, out = (path.replace(",", ",,") for path in counter)  # a comma alone ends an option's value
        start += ["-plugin", f"file={library},out={out}"]
    return [*start, *command]


def run_code(command: list[str], code: str) -> subprocess.CompletedProcess[str]:
    """Run lines of Python by such a command. Raises DeviceError where they do not end."""
    try:
        return subprocess.run(
            [*command, "-c", code],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{command[0]}: still running after {SECONDS:g} s, killed") from None
