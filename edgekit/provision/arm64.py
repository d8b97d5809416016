"""What arm64 targets need: a bundle with Python and the runtime's wheels, the cores' profiles, a counter for qemu.

    CACHE/arm64/KEY/bundle/{bin,lib,site}       plain files, for any arm64 Linux
    CACHE/arm64/KEY/cores/CORE/proc/cpuinfo     for qemu's -L
    CACHE/arm64/KEY/counter/count.so            qemu's plugin; not there where this qemu takes none
    CACHE/arm64/KEY/digests.json                what was installed; written last

KEY is of the wheels' versions (this machine's own, so that numbers compare), qemu's version and the counter's source.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from edgekit.artifact import library_versions
from edgekit.digest import SHORT, digest_file, digest_files, digest_json
from edgekit.errors import DeviceError, Problem
from edgekit.progress import Progress
from edgekit.provision.cache import locked
from edgekit.provision.cores import write_profiles
from edgekit.provision.counter import SOURCE, build
from edgekit.provision.debian import install_python
from edgekit.provision.start import QEMU, emulated, run_code
from edgekit.provision.wheels import install_wheels

__all__ = ["Arm64", "find", "missing", "ready", "setup", "uncounted"]

LAYOUT = 1  # to raise when what is installed changes
WHEELS = ("onnxruntime", "tokenizers", "numpy")
TOOLS = {
    QEMU: "apt-get install qemu-user",
    "apt-get": "prepare it on Debian or Ubuntu",
    "dpkg": "apt-get install dpkg",
    "cc": "apt-get install gcc libc6-dev",
}
# Run in the bundle: proves that it works, and leaves compiled what jobs import. It is never written to again.
COMPILE = """
import os, py_compile, sys
import ctypes, gc, json, pathlib, random, select, signal, statistics, subprocess
import numpy, onnxruntime, tokenizers
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
for module in list(sys.modules.values()):
    file = getattr(module, "__file__", None) or ""
    if file.endswith(".py"):
        name = os.path.relpath(file, os.environ["PYTHONHOME"])
        py_compile.compile(file, dfile=name, doraise=True, invalidation_mode=mode)
"""


@dataclass(frozen=True)
class Arm64:
    """What was prepared below `root`: folders by name, with their digests. `python`: its version, "3.11"."""

    root: Path
    python: str
    digests: dict[str, str]

    def folder(self, name: str) -> tuple[Path, str]:
        """The folder `bundle`, `cores` or `counter`, and its digest."""
        return self.root / name, self.digests[name]

    @property
    def counts(self) -> bool:
        """Whether this machine's qemu can count instructions."""
        return "counter" in self.digests


def setup(cache: Path, progress: Progress) -> Path:
    """Prepare all of it below `cache`, once; the folder. Two processes may ask at the same time.

    Raises DeviceError that names every tool that is missing, and where the network, the disk or what came fails.
    """
    if problems := _tools():
        raise DeviceError("arm64 targets cannot be prepared here", problems=problems)
    folder = _folder(cache)
    with locked(folder.parent):
        if not (folder / "digests.json").is_file():
            _install(folder, progress)
    return folder


def missing(cache: Path) -> tuple[Problem, ...]:
    """What is not there, each with the command that installs it. Quick."""
    if (_folder(cache) / "digests.json").is_file():
        return tuple(problem for problem in _tools() if problem.where == QEMU)
    return (*_tools(), Problem("arm64 bundle", "not prepared", "edgekit targets setup arm64"))


def uncounted(cache: Path) -> tuple[Problem, ...]:
    """What keeps instructions from being counted, once all else is there."""
    if not ready(cache) or find(cache).counts:
        return ()
    version = re.search(r"version (\S+)", _version(shutil.which(QEMU) or ""))
    what = f"instructions cannot be counted with this qemu ({version[1] if version else 'of no known version'})"
    return (Problem("", what, "use qemu-user 7 or 8, built with plugins"),)


def ready(cache: Path) -> bool:
    """Whether jobs can run under qemu."""
    return not missing(cache)


def find(cache: Path) -> Arm64:
    """What `setup` prepared for these versions. Raises DeviceError where it did not."""
    folder = _folder(cache)
    try:
        known = json.loads((folder / "digests.json").read_text(encoding="utf-8"))
    except OSError:
        raise DeviceError("the arm64 bundle is not prepared", hint="edgekit targets setup arm64") from None
    return Arm64(folder, known["python"], known["folders"])


def _tools() -> tuple[Problem, ...]:
    found = [Problem(name, "not found", hint) for name, hint in TOOLS.items() if shutil.which(name) is None]
    if library_versions(("pip",))["pip"] == "absent":
        found.append(Problem("pip", "not found", "python -m ensurepip"))
    return tuple(found)


def _folder(cache: Path) -> Path:
    qemu = _version(shutil.which(QEMU) or "")
    wheels: dict[str, JsonValue] = {**library_versions(WHEELS)}
    key = digest_json({"layout": LAYOUT, "wheels": wheels, "qemu": qemu, "counter": digest_file(SOURCE)})
    return cache / "arm64" / key[:SHORT]


@functools.cache
def _version(qemu: str) -> str:
    """First line of what `qemu --version` prints; empty where it does not run."""
    try:
        done = subprocess.run([qemu, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout.splitlines() or [""])[0]


def _install(folder: Path, progress: Progress) -> None:
    """All of it in a folder beside, which takes its name when it is whole."""
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder.parent, ignore_cleanup_errors=True) as temporary:
        root, work = Path(temporary) / "root", Path(temporary) / "work"
        bundle, cores = root / "bundle", root / "cores"
        (work / "wheels").mkdir(parents=True)
        progress.say("downloading Python for arm64")
        python, packages = install_python(work, bundle)
        progress.say(f"downloading {', '.join(WHEELS)} for arm64")
        wheels = install_wheels(library_versions(WHEELS), python, work / "wheels", bundle / "site")
        write_profiles(cores)
        progress.say("starting it under qemu")
        command = functools.partial(emulated, "cortex-a53", str(cores), str(bundle), python)
        done = run_code(command(), COMPILE)
        if done.returncode:
            raise DeviceError(f"the arm64 bundle does not run under qemu: {done.stderr.strip()[-300:]}")
        if why := build(root / "counter", work, command):
            progress.say(f"instructions cannot be counted: {why} (qemu-user 7 or 8, built with plugins, can)")
        known = {
            "python": python,
            "folders": {path.name: digest_json({**digest_files(path)}) for path in sorted(root.iterdir())},
            "packages": packages,
            "wheels": wheels,
        }
        (root / "digests.json").write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # what an earlier, broken run left
        root.rename(folder)
