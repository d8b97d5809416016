"""Targets: names for transport x launcher x runtimes. Built in, or from the user's `targets.yaml`.

targets:
  pi: {transport: ssh, host: pi.local, user: pi, python: ~/venv/bin/python, cores: [2, 3], threads: 2}
  phone: {transport: adb, serial: R58M12, launcher: bundle}
  old-core: {transport: local, launcher: cortex-a53}
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from edgekit.artifact import Frozen, TaskKind, library_versions
from edgekit.errors import Problem, RecipeError, UsageError
from edgekit.launchers import Launcher
from edgekit.progress import Progress
from edgekit.provision.cache import cache_root
from edgekit.runtimes import ARM64, CUDA, RUNTIMES, WEB, Runtimes
from edgekit.runtimes.lm import runtimes_for
from edgekit.transports import LOCAL, Local, Transport
from edgekit.yaml_files import count, load_mapping, nearest, problem_of

__all__ = ["BUILT_IN", "AdbEntry", "Entry", "Target", "TargetFile", "find_target", "load_targets", "missing", "set_up"]

FILE = "targets.yaml"
Core = Literal["cortex-a53", "cortex-a72", "cortex-a76"]


@dataclass(frozen=True)
class Target:
    """Where files are run. `threads`: of an inference, unless the workload says otherwise (0: it does);
    `setup`: the name under which `edgekit targets setup` prepares what it needs ("": nothing); `here`: whether it is
    this machine, where edgekit is."""

    name: str
    about: str
    transport: Transport
    runtimes: Runtimes
    threads: int = 0
    setup: str = ""
    here: bool = True

    def executes(self, kind: TaskKind) -> Runtimes:
        """What runs files of such a task there, by format; a runtime that imports edgekit only where edgekit is."""
        found = runtimes_for(kind, self.runtimes)
        return found if self.here else {name: runtime for name, runtime in found.items() if not runtime.package}


class _Entry(Frozen):
    """What every entry of targets.yaml may say."""

    about: str = Field("", description="a line about it, for lists")
    threads: int = Field(0, ge=0, le=1024, description="threads of an inference; 0: as the workload says")


class _Machine(_Entry):
    """What is said of a machine that runs Python."""

    launcher: Literal["native", "bundle"] | Core = Field(
        "native", description="its own Python, one that is pushed (arm64), or the core to emulate"
    )
    cores: tuple[Annotated[int, Field(ge=0)], ...] = Field((), description="numbers of the cores it may run on")
    provider: Literal["cpu", "cuda"] = Field("cpu", description="what runtimes compute on")
    environment: dict[str, str] = Field(default_factory=dict, description="variables of the work")

    def _target(self, name: str, transport: Transport, *, here: bool = False) -> Target:
        """The target behind `transport`. Raises UsageError where the launcher cannot compute on the provider."""
        if self.launcher == "native":
            runtimes = CUDA if self.provider == "cuda" else RUNTIMES
            return Target(name, self.about, transport, runtimes, self.threads, here=here)
        if self.provider == "cuda":
            hint = "leave out the provider, or take launcher: native"
            raise UsageError(f"launcher {self.launcher} brings a Python that has no CUDA", hint=hint)
        return Target(name, self.about, transport, ARM64, self.threads, "arm64", here)


class LocalEntry(_Machine):
    """This machine, as it is or emulating a core."""

    transport: Literal["local"]
    launcher: Literal["native"] | Core = Field("native", description="native, or the core to emulate")

    def target(self, name: str) -> Target:
        launcher = _launcher(self.launcher) or LOCAL.launcher
        return self._target(name, Local(launcher, self.cores, self.environment), here=True)


class _Device(_Machine):
    """What is said of another machine."""

    root: str = Field("", description="folder there for what is pushed")
    python: str = Field("python3", description="the interpreter there, for launcher native")
    lock_wait: float = Field(600.0, gt=0, description="seconds to wait for others on the device")

    def _options(self) -> dict[str, Any]:
        """The arguments of `Remote`."""
        names = ("root", "python", "cores", "environment", "lock_wait")
        return {name: getattr(self, name) for name in names} | {"launcher": _launcher(self.launcher)}


class SshEntry(_Device):
    """A machine behind ssh. A core is emulated by the qemu-aarch64 that is there."""

    transport: Literal["ssh"]
    host: str = Field(description="name, address, or alias of ~/.ssh/config")
    port: int = Field(0, ge=0, le=65535, description="0: as ssh's own configuration says")
    user: str = ""
    key: Path | None = Field(None, description="private key's file")
    known_hosts: Path | None = Field(None, description="file with the host's key")

    def target(self, name: str) -> Target:
        from edgekit.transports.ssh import Ssh

        key = self.key.expanduser() if self.key else None
        known_hosts = self.known_hosts.expanduser() if self.known_hosts else None
        return self._target(name, Ssh(self.host, self.port, self.user, key, known_hosts, **self._options()))


class AdbEntry(_Device):
    """A phone or board behind adb. A phone has no Python: the bundle brings it."""

    transport: Literal["adb"]
    serial: str = Field("", description="as `adb devices` shows it; empty: the only device")
    launcher: Literal["native", "bundle"] = Field("bundle", description="its own Python, or one that is pushed (arm64)")

    def target(self, name: str) -> Target:
        from edgekit.transports.adb import Adb

        return self._target(name, Adb(self.serial, **self._options()))


class BrowserEntry(_Entry):
    """Headless Chromium on this machine."""

    transport: Literal["browser"]
    chromium: Path | None = Field(None, description="the browser's program; without it, the one that is installed")

    def target(self, name: str) -> Target:
        from edgekit.transports.browser import Browser

        return Target(name, self.about, Browser(self.chromium), WEB, self.threads, "web")


class NodeEntry(_Entry):
    """WebAssembly in Node on this machine."""

    transport: Literal["node"]

    def target(self, name: str) -> Target:
        from edgekit.transports.browser import Node

        return Target(name, self.about, Node(), WEB, self.threads, "web")


Entry = Annotated[LocalEntry | SshEntry | AdbEntry | BrowserEntry | NodeEntry, Field(discriminator="transport")]
ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)
KINDS: dict[str, type[_Entry]] = {
    "local": LocalEntry,
    "ssh": SshEntry,
    "adb": AdbEntry,
    "browser": BrowserEntry,
    "node": NodeEntry,
}


class TargetFile(Frozen):
    """targets.yaml."""

    targets: dict[str, Entry]


PROGRAMS = {"ssh": "apt-get install openssh-client", "adb": "apt-get install adb"}
BUILT_IN: dict[str, Entry] = {
    "cpu": LocalEntry(transport="local", about="this machine's processor"),
    "cuda": LocalEntry(transport="local", provider="cuda", about="this machine's NVIDIA GPU"),
    **{
        core: LocalEntry(
            transport="local", launcher=core, threads=1, about=f"an emulated {core}: answers, instructions"
        )
        for core in ("cortex-a53", "cortex-a72", "cortex-a76")
    },
    "browser": BrowserEntry(transport="browser", about="WebAssembly in headless Chromium"),
    "node": NodeEntry(transport="node", about="WebAssembly in Node"),
}


def load_targets(path: Path | None = None) -> dict[str, Entry]:
    """Built-in targets and those of a file (default: $EDGEKIT_TARGETS, else `targets.yaml` here, where there is one).

    Raises RecipeError with all problems of the file.
    """
    own = os.environ.get("EDGEKIT_TARGETS")
    file = path or (Path(own) if own else Path(FILE))
    if path is None and not own and not file.is_file():
        return dict(BUILT_IN)
    content = load_mapping(file, "file of targets")
    entries = content.get("targets")
    if set(content) != {"targets"} or not isinstance(entries, dict):
        raise RecipeError(f"{file}: it holds one key, `targets`, with an entry per name")
    found: dict[str, Entry] = {}
    problems: list[Problem] = []
    for name, entry in entries.items():
        try:
            found[str(name)] = ENTRY.validate_python(entry)
            found[str(name)].target(str(name))
        except ValidationError as error:
            problems += [_problem(str(name), entry, item) for item in error.errors()]
        except UsageError as error:
            problems.append(Problem(f"targets.{name}", error.what, error.hint))
    if problems:
        raise RecipeError(f"{file}: {count(problems)}", problems=tuple(problems))
    return {**BUILT_IN, **found}


def missing(entry: Entry) -> tuple[Problem, ...]:
    """What this machine lacks for a target, with the command that adds it; a device itself is not asked."""
    from edgekit.provision import arm64, web

    found: list[Problem] = []
    if entry.transport in PROGRAMS and shutil.which(entry.transport) is None:
        found.append(Problem("", f"{entry.transport} is not installed", PROGRAMS[entry.transport]))
    if isinstance(entry, LocalEntry) and entry.provider == "cuda":
        found += _missing_for_cuda()
    if entry.transport in ("browser", "node"):
        found += web.missing(cache_root(), browser=isinstance(entry, BrowserEntry) and entry.chromium is None)
    if isinstance(entry, _Machine) and entry.launcher != "native":
        found += arm64.missing(cache_root())
        if entry.launcher != "bundle":
            found += arm64.uncounted(cache_root())
    return tuple(found)


def set_up(what: str, progress: Progress) -> Path:
    """Prepare `arm64` or `web` in the cache; its folder. Raises DeviceError where something is missing."""
    from edgekit.provision import arm64, web

    setup = {"arm64": arm64.setup, "web": web.setup}[what]
    return setup(cache_root(), progress)


def find_target(name: str, path: Path | None = None) -> Target:
    """The target of this name. Raises UsageError for an unknown one."""
    known = load_targets(path)
    if name not in known:
        raise UsageError(f"no target {name!r}", hint=nearest(name, list(known)))
    return known[name].target(name)


def _missing_for_cuda() -> list[Problem]:
    found = []
    if shutil.which("nvidia-smi") is None:
        found.append(Problem("", "no NVIDIA driver", "a machine with an NVIDIA GPU"))
    if library_versions(("onnxruntime-gpu",))["onnxruntime-gpu"] == "absent":
        found.append(Problem("", "onnxruntime-gpu is not installed", CUDA["onnx"].install))
    return found


def _problem(name: str, entry: object, error: object) -> Problem:
    kind = KINDS.get(str(entry.get("transport"))) if isinstance(entry, dict) else None
    if kind is None:
        given = entry.get("transport") if isinstance(entry, dict) else entry
        return Problem(f"targets.{name}.transport", f"{given!r} is no transport", nearest(str(given), list(KINDS)))
    found = dict(error)  # type: ignore[call-overload]
    found["loc"] = found["loc"][1:]  # the first is the transport, by which pydantic chose
    return problem_of(kind, found, f"targets.{name}")


def _launcher(name: Literal["native", "bundle"] | Core) -> Launcher | None:
    """None for the interpreter as it is there."""
    if name == "native":
        return None
    if name == "bundle":
        from edgekit.launchers.bundle import Bundle

        return Bundle()
    from edgekit.launchers.qemu import Qemu

    return Qemu(name)
