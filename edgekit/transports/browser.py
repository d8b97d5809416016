"""WebAssembly on this machine: headless Chromium, or Node. A script of Node drives either (`runtimes/workers/web/`).

The browser loads the work's files from a private server on the loopback interface, isolated, so that it has threads and
a fine clock. It is a fresh one for each piece of work.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from edgekit.artifact import library_versions
from edgekit.errors import DeviceError
from edgekit.jobs import WORKERS, Completed, Fidelity, Job, Work
from edgekit.launchers import Native
from edgekit.machine import Machine, describe
from edgekit.provision.cache import cache_root
from edgekit.provision.web import Web, find, find_chromium, version_of
from edgekit.transports.local import Local

__all__ = ["Browser", "Node"]

SCRIPTS = WORKERS / "web"
RUNTIME = "onnxruntime-web"


@dataclass(frozen=True)
class Browser:
    """Headless Chromium. `chromium`: the program (without it, CHROMIUM or what is installed); `sandbox`: Chromium's
    own, which root cannot have; `cache`: where `provision.web` put its packages."""

    chromium: Path | None = None
    sandbox: bool = True
    cache: Path | None = None

    @property
    def name(self) -> str:
        return "browser"

    @property
    def fidelity(self) -> Fidelity:
        return "measured"

    def identity(self, libraries: tuple[str, ...]) -> dict[str, str]:
        """Processor, browser, and versions of `libraries`."""
        web = find(self.cache or cache_root())
        return {**_identity(web, libraries), "browser": version_of(find_chromium(self.chromium))}

    def probe(self, packages: tuple[str, ...] = ()) -> Machine:
        """This machine, with the versions that `identity` names."""
        return describe().model_copy(update={"libraries": self.identity(packages)})

    def run(self, work: Work) -> Completed:
        """See `Transport.run`. Raises DeviceError too where Node, the packages or Chromium are missing."""
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        sandbox = "yes" if self.sandbox and not root else "no"
        return _run(self.cache, work, "driver.mjs", str(find_chromium(self.chromium)), sandbox)


@dataclass(frozen=True)
class Node:
    """The same WebAssembly in Node, without a browser. `cache` as in `Browser`."""

    cache: Path | None = None

    @property
    def name(self) -> str:
        return "node"

    @property
    def fidelity(self) -> Fidelity:
        return "measured"

    def identity(self, libraries: tuple[str, ...]) -> dict[str, str]:
        """Processor, Node, and versions of `libraries`."""
        web = find(self.cache or cache_root())
        return {**_identity(web, libraries), "node": version_of(web.node)}

    def probe(self, packages: tuple[str, ...] = ()) -> Machine:
        """This machine, with the versions that `identity` names."""
        return describe().model_copy(update={"libraries": self.identity(packages)})

    def run(self, work: Work) -> Completed:
        """See `Transport.run`. Raises DeviceError too where Node or the packages are missing."""
        return _run(self.cache, work, "node.mjs")


def _run(cache: Path | None, work: Work, script: str, *arguments: str) -> Completed:
    """Run the work by a script of Node, which gets the packages' folder and `arguments` before the work's own."""
    web = find(cache or cache_root())
    for job in (work,) if isinstance(work, Job) else work.jobs:
        if not job.worker.endswith(".mjs"):
            what = f"{job.name}: a worker in Python does not run in WebAssembly"
            raise DeviceError(what, hint=f"only ONNX files run there, in {RUNTIME}")
    return Local(Native(str(web.node), (str(SCRIPTS / script), str(web.modules), *arguments))).run(work)


def _identity(web: Web, libraries: tuple[str, ...]) -> dict[str, str]:
    machine = describe()
    versions = library_versions(tuple(name for name in libraries if name != RUNTIME))
    return {"cpu": machine.cpu, "isa": " ".join(machine.isa), **versions, RUNTIME: web.version, "wasm": "simd, threads"}
