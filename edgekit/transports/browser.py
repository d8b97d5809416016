"""WebAssembly on this machine: headless Chromium, or Node. A script of Node drives either (`runtimes/workers/web/`).

The browser loads the work's files from a private server on the loopback interface, isolated, so that it has threads and
a fine clock. It is a fresh one for each piece of work.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
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


@dataclass(frozen=True, kw_only=True)
class _WebAssembly(ABC):
    """What both share. `cache`: where `provision.web` put its packages."""

    cache: Path | None = None

    @property
    @abstractmethod
    def name(self) -> str:
        """See `Transport.name`."""

    @property
    def fidelity(self) -> Fidelity:
        return "measured"

    @abstractmethod
    def _version(self, web: Web) -> str:
        """Of the program that runs the WebAssembly."""

    def identity(self, libraries: tuple[str, ...]) -> dict[str, str]:
        """Processor, the program's version, and those of `libraries`."""
        web, machine = find(self.cache or cache_root()), describe()
        versions = library_versions(tuple(name for name in libraries if name != RUNTIME))
        known = {"cpu": machine.cpu, "isa": " ".join(machine.isa), **versions, RUNTIME: web.version}
        return {**known, "wasm": "simd, threads", self.name: self._version(web)}

    def probe(self, packages: tuple[str, ...] = ()) -> Machine:
        """This machine, with the versions that `identity` names."""
        return describe().model_copy(update={"libraries": self.identity(packages)})

    def _run(self, work: Work, script: str, *arguments: str) -> Completed:
        """Run the work by a script of Node, which gets the packages' folder and `arguments` before the work's own."""
        web = find(self.cache or cache_root())
        for job in (work,) if isinstance(work, Job) else work.jobs:
            if not job.worker.endswith(".mjs"):
                what = f"{job.name}: a worker in Python does not run in WebAssembly"
                raise DeviceError(what, hint=f"only ONNX files run there, in {RUNTIME}")
        return Local(Native(str(web.node), (str(SCRIPTS / script), str(web.modules), *arguments))).run(work)


@dataclass(frozen=True)
class Browser(_WebAssembly):
    """Headless Chromium. `chromium`: the program (without it, CHROMIUM or what is installed); `sandbox`: Chromium's
    own, which root cannot have."""

    chromium: Path | None = None
    sandbox: bool = True

    @property
    def name(self) -> str:
        return "browser"

    def _version(self, web: Web) -> str:
        return version_of(find_chromium(self.chromium))

    def run(self, work: Work) -> Completed:
        """See `Transport.run`. Raises DeviceError too where Node, the packages or Chromium are missing."""
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        sandbox = "yes" if self.sandbox and not root else "no"
        return self._run(work, "driver.mjs", str(find_chromium(self.chromium)), sandbox)


@dataclass(frozen=True)
class Node(_WebAssembly):
    """The same WebAssembly in Node, without a browser."""

    @property
    def name(self) -> str:
        return "node"

    def _version(self, web: Web) -> str:
        return version_of(web.node)

    def run(self, work: Work) -> Completed:
        """See `Transport.run`. Raises DeviceError too where Node or the packages are missing."""
        return self._run(work, "node.mjs")
