"""What a browser target needs: onnxruntime-web and playwright-core from npm, Node, and the Chromium of this machine.

`npm/package-lock.json` pins every package by version and sha512. A folder in the cache holds what it names.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgekit.digest import digest_file, digest_json
from edgekit.errors import DeviceError, Problem
from edgekit.progress import Progress
from edgekit.provision.cache import locked

__all__ = ["Web", "find", "find_chromium", "missing", "ready", "setup", "version_of"]

NPM = Path(__file__).parent / "npm"  # package.json, package-lock.json
NODE = (20, 11)  # the oldest that the scripts run in
CHROMIUMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC_CHROME = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
SHIPPED = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")  # what a page loads
SECONDS = 900.0  # for npm, on a slow line


@dataclass(frozen=True)
class Web:
    """Node, and the folder `node_modules` with the packages."""

    node: Path
    modules: Path

    @property
    def version(self) -> str:
        """onnxruntime-web's."""
        found = json.loads((self.modules / "onnxruntime-web" / "package.json").read_text(encoding="utf-8"))
        return str(found["version"])


def setup(cache: Path, progress: Progress) -> Path:
    """Install the pinned packages below `cache`, once; the folder. Node and Chromium come from the system's packages.

    `digests.json` beside them says what was installed. Raises DeviceError where Node or npm is missing, where the cache
    cannot be written, or npm fails.
    """
    node, npm = _node(), shutil.which("npm")
    if isinstance(node, Problem) or npm is None:
        raise DeviceError("npm is missing" if npm is None else str(node), hint="apt-get install nodejs npm")
    folder = _folder(cache)
    with locked(folder.parent):
        if not (folder / "digests.json").is_file():
            progress.say("installing onnxruntime-web and playwright-core")
            _install(npm, folder)
    return folder


def missing(cache: Path, *, browser: bool = True) -> tuple[Problem, ...]:
    """What is not there, each with the command that installs it. `browser`: whether one is needed, or Node will do."""
    chromium = _chromium(None)
    return _missing(cache) + ((chromium,) if browser and isinstance(chromium, Problem) else ())


def ready(cache: Path) -> bool:
    """Whether a browser can be driven."""
    return not missing(cache)


def find(cache: Path) -> Web:
    """Node and the packages. Raises DeviceError that names what is missing."""
    node = _node()
    if isinstance(node, Problem) or _missing(cache):
        raise DeviceError("onnxruntime-web cannot be run", problems=_missing(cache))
    return Web(node, _folder(cache) / "node_modules")


def find_chromium(asked: Path | None = None) -> Path:
    """`asked`, or the program that CHROMIUM names, or an installed one. Raises DeviceError where there is none."""
    found = _chromium(asked)
    if isinstance(found, Problem):
        raise DeviceError(f"Chromium: {found.what}", hint=found.hint)
    return found


@cache
def version_of(program: Path) -> str:
    """What `program --version` prints, such as "Chromium 156.0.8078.79"; empty where it does not run."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _missing(cache: Path) -> tuple[Problem, ...]:
    """Of Node and the packages."""
    node = _node()
    found = (node,) if isinstance(node, Problem) else ()
    if not (_folder(cache) / "digests.json").is_file():
        return (*found, Problem("onnxruntime-web", "not installed", "edgekit targets setup web"))
    return found


def _node() -> Path | Problem:
    hint = f"apt-get install nodejs ({NODE[0]}.{NODE[1]} or newer)"
    found = shutil.which("node")
    if found is None:
        return Problem("node", "not found", hint)
    version = version_of(Path(found))
    numbers = re.match(r"v(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < NODE:
        return Problem("node", f"{found} is {version or 'not a Node that runs'}", hint)
    return Path(found)


def _chromium(asked: Path | None) -> Path | Problem:
    wanted = asked or os.environ.get("CHROMIUM")
    names = (str(wanted),) if wanted else (*CHROMIUMS, str(MAC_CHROME))
    found = next(filter(None, map(shutil.which, names)), None)
    if found is not None:
        return Path(found)
    what = f"no program at {wanted}" if wanted else "no browser was found"
    return Problem("chromium", what, "apt-get install chromium-headless-shell, or set CHROMIUM to a program")


def _folder(cache: Path) -> Path:
    return cache / "web" / digest_file(NPM / "package-lock.json")[:12]


def _install(npm: str, folder: Path) -> None:
    """`npm ci` into a folder beside, which takes its name when it is whole."""
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder.parent, ignore_cleanup_errors=True) as partial:
        root = Path(partial) / "web"
        shutil.copytree(NPM, root)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        try:
            done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise DeviceError(f"npm ci: still running after {SECONDS:g} s, killed") from None
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise DeviceError(f"npm ci failed: {' '.join(lines[:3]) or f'exit code {done.returncode}'}")
        (root / "digests.json").write_text(json.dumps(_digests(root), indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # what an earlier, broken run left
        root.rename(folder)


def _digests(root: Path) -> dict[str, object]:
    """Versions and sha512 of the packages, as the lock has them and npm checked them; sha256 of the files of a page."""
    lock = json.loads((root / "package-lock.json").read_text(encoding="utf-8"))
    packages = {
        name.removeprefix("node_modules/"): {"version": entry["version"], "integrity": entry["integrity"]}
        for name, entry in lock["packages"].items()
        if name
    }
    dist = root / "node_modules" / "onnxruntime-web" / "dist"
    files = {name: digest_file(dist / name) for name in SHIPPED}
    return {"lock": digest_json(lock), "packages": packages, "files": files}
