"""Python and its libraries for arm64, from the Debian packages that this machine's apt is set up for.

apt gets a state of its own, so the machine's packages stay as they are and nobody needs to be root.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

from edgekit.digest import digest_file
from edgekit.errors import DeviceError

__all__ = ["SOURCES", "gather", "install_python"]

SOURCES = "EDGEKIT_ARM64_SOURCES"  # a sources.list with arm64 packages, where the machine's own has none (Ubuntu)
PACKAGES = ("python3", "libc6", "libgcc-s1", "libstdc++6", "zlib1g")
LIBRARIES = ("lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu")
SECONDS = 900.0  # for one run of apt, on a slow line

Installed = dict[str, dict[str, str]]  # package -> version, sha256


def install_python(work: Path, out: Path) -> tuple[str, Installed]:
    """Fill `out` with bin/pythonX.Y, lib/*.so* and lib/pythonX.Y, all plain files; X.Y, and the packages it is from.

    `work`: a folder for what is needed on the way. Raises DeviceError where packages cannot be had.
    """
    packages = _download(work)
    root = work / "root"
    root.mkdir()
    installed: Installed = {}
    for package in packages:
        name, version, _ = package.stem.split("_")
        done = _run(["dpkg", "-x", str(package), str(root)])
        if done.returncode:
            raise DeviceError(f"dpkg could not unpack {package.name}: {_errors(done)}")
        installed[name] = {"version": unquote(version), "sha256": digest_file(package)}
    return gather(root, out), installed


def _download(work: Path) -> list[Path]:
    """The packages and all they depend on, as files. apt checks them against the machine's keys."""
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True)
    (work / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "APT::Sandbox::User": "",
        "Dir::State": str(work / "state"),
        "Dir::State::status": str(work / "status"),
        "Dir::Cache": str(work / "cache"),
        "Acquire::Languages": "none",
    }
    if own := os.environ.get(SOURCES):
        settings |= {"Dir::Etc::sourcelist": str(Path(own).resolve()), "Dir::Etc::sourceparts": "-"}
    apt = ["apt-get", "-qq", *(part for name, value in settings.items() for part in ("-o", f"{name}={value}"))]
    update = _run([*apt, "update"])  # one source of many may fail and do no harm
    done = _run([*apt, "-y", "--no-install-recommends", "--download-only", "install", *PACKAGES])
    if done.returncode:
        hint = f"is there a network? Do apt's sources have arm64? {SOURCES} may name a sources.list that has"
        raise DeviceError(f"apt-get cannot download Python for arm64: {_errors(update, done)}", hint=hint)
    return sorted((work / "cache" / "archives").glob("*.deb"))


def gather(root: Path, out: Path) -> str:
    """From Debian's folders to a prefix without links: it can be copied anywhere. Python's version."""
    binary = next((p for p in (root / "usr/bin").glob("python3.*") if re.fullmatch(r"python3\.\d+", p.name)), None)
    if binary is None:
        raise DeviceError("the arm64 packages hold no Python", hint=f"{SOURCES} may name another sources.list")
    (out / "bin").mkdir(parents=True)
    shutil.copy2(binary, out / "bin")
    modules = root / "usr/lib" / binary.name
    shutil.copytree(modules, out / "lib" / binary.name, ignore=_links)
    found = [path for folder in LIBRARIES for path in (root / folder).glob("*.so*")]
    aliased = {path.resolve() for path in found if path.is_symlink()}  # a library goes by the name programs ask for
    for path in found:
        if path not in aliased:
            shutil.copy2(path.resolve(), out / "lib" / path.name)
    return binary.name.removeprefix("python")


def _links(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_symlink()]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, check=False, env=env, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{command[0]}: still running after {SECONDS:g} s, killed") from None


def _errors(*runs: subprocess.CompletedProcess[str]) -> str:
    lines = [line for done in runs for line in done.stderr.splitlines() if line.startswith(("E:", "W:", "dpkg"))]
    return " ".join(lines[:3]) or f"exit code {runs[-1].returncode}"
