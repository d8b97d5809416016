"""Wheels for arm64 Linux, of given versions, unpacked into a folder for PYTHONPATH."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from edgekit.digest import digest_file
from edgekit.errors import DeviceError

__all__ = ["install_wheels", "unpack"]

PLATFORMS = tuple(f"{name}_aarch64" for name in ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014"))
SECONDS = 900.0  # for pip, on a slow line


def install_wheels(versions: Mapping[str, str], python: str, work: Path, out: Path) -> dict[str, dict[str, str]]:
    """Unpack the wheels of `versions` (distribution -> version) for that Python ("3.11") into `out`; their digests.

    `work`: an empty folder. Raises DeviceError where there is no such wheel, no network, or a wheel that is not sound.
    """
    wanted = [f"{name}=={version}" for name, version in versions.items()]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(work), "--implementation", "cp", "--python-version", python]
    for abi in (f"cp{python.replace('.', '')}", "abi3", "none"):
        command += ["--abi", abi]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    try:
        done = subprocess.run(
            [*command, *wanted], capture_output=True, text=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(f"pip download: still running after {SECONDS:g} s, killed") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        what = f"arm64 wheels of {', '.join(wanted)} for Python {python} cannot be had"
        raise DeviceError(what, hint=" ".join(lines[-2:]) or "is there a network?")
    wheels = {path.name.split("-")[0].replace("_", "-"): path for path in sorted(work.glob("*.whl"))}
    for wheel in wheels.values():
        unpack(wheel, out)
    return {name: {"version": versions[name], "sha256": digest_file(path)} for name, path in wheels.items()}


def unpack(wheel: Path, out: Path) -> None:
    """Unpack a wheel, tests left out. Raises DeviceError for a broken one, or a file that would land elsewhere."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                path = PurePosixPath(member.filename)
                if path.is_absolute() or ".." in path.parts or "\\" in member.filename:
                    raise DeviceError(f"{wheel.name}: it holds {member.filename!r}, which lies outside of it")
                if "tests" not in path.parts:
                    archive.extract(member, out)
    except zipfile.BadZipFile as error:
        raise DeviceError(f"{wheel.name}: {error}") from None
