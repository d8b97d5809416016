"""How the arm64 bundle's Python is started: by its own loader, and that under qemu as one core."""

from __future__ import annotations

import subprocess

from edgekit.errors import DeviceError
from edgekit.provision.cores import Core

__all__ = ["QEMU", "emulated", "native", "run_code"]

QEMU = "qemu-aarch64"
FIXED = (
    "-R",
    "64G",
    "-seed",
    "0",
)  # the guest's addresses and random bytes are not the host's: counts repeat
SECONDS = 600.0  # for a few lines of Python under qemu, on a busy machine


def native(bundle: str, python: str) -> list[str]:
    """The command of Python `python` ("3.11") in the folder `bundle`, with the libraries that lie there."""
    return [*_environment(bundle), *_program(bundle, python)]


def emulated(
    core: Core, cores: str, bundle: str, python: str, counter: tuple[str, str] | None = None, qemu: str = QEMU
) -> list[str]:
    """The same under qemu. `cores`: the folder of profiles; `counter`: count.so, and the file that it writes."""
    start = [qemu, "-cpu", core, "-L", f"{cores}/{core}", "-U", "LD_LIBRARY_PATH", "-U", "LD_PRELOAD", *FIXED]
    if counter is not None:
        library, out = (path.replace(",", ",,") for path in counter)  # a comma alone ends an option's value
        start += ["-plugin", f"file={library},out={out}"]
    return [*_environment(bundle), *start, *_program(bundle, python)]


def _environment(bundle: str) -> list[str]:
    """By `env`, which qemu's programs inherit: qemu's own option for it cannot hold a comma."""
    variables = {
        "PYTHONHOME": bundle,
        "PYTHONPATH": f"{bundle}/site",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",  # else the order of sets, and with it the number of instructions, is another every time
    }
    return ["env", *(f"{name}={value}" for name, value in variables.items())]


def _program(bundle: str, python: str) -> list[str]:
    loader = f"{bundle}/lib/ld-linux-aarch64.so.1"
    return [loader, "--library-path", f"{bundle}/lib", f"{bundle}/bin/python{python}"]


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
        raise DeviceError(f"arm64 Python: still running after {SECONDS:g} s, killed") from None
