"""What ssh and adb share: work on a device behind a shell, in turns with others, killed there when it must be."""

from __future__ import annotations

import json
import math
import os
import shlex
import socket
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Protocol

from pydantic import JsonValue

from edgekit.errors import DeviceError, UsageError
from edgekit.jobs import Completed, Fidelity, Place
from edgekit.launchers import Launcher, Native
from edgekit.machine import Machine
from edgekit.probe import Probe, machine_of
from edgekit.transports.base import TAIL, check_options, pools
from edgekit.transports.device import Device
from edgekit.transports.failures import ended_badly, worker_failed
from edgekit.transports.shell import Shell
from edgekit.transports.there import There

__all__ = ["Remote", "Runnable"]

GRACE = 60.0  # seconds beyond the lock's and the work's limits until the device counts as gone
TIMED_OUT = (124, 137, 143)  # of `timeout`: ended when told to, only when killed, or as busybox says it


class Runnable(Protocol):
    """What a device needs to know of work: a `Job`, a `Sitting`, a `Probe`."""

    @property
    def name(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def timeout(self) -> float: ...
    @property
    def package(self) -> bool: ...
    @property
    def script(self) -> str: ...
    def wire(self, place: Place) -> dict[str, JsonValue]: ...


@dataclass(frozen=True, kw_only=True)
class Remote(ABC):
    """A transport to a Linux or Android device. The connection opens with the first work and is kept.

    `root`: folder there, absolute or below "~/" (empty: the transport's own); `python`: the interpreter there (it may
    begin with "~/"), unless a `launcher` brings one; `cores`: those it may run on (empty: any); `environment`:
    variables of the work; `lock_wait`: seconds to wait for others on the device. Raises UsageError for a root, core or
    variable that cannot be.
    """

    ROOT: ClassVar[str]

    root: str = ""
    python: str = "python3"
    launcher: Launcher | None = None
    cores: tuple[int, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    lock_wait: float = 600.0

    def __post_init__(self) -> None:
        if self.root and not self.root.startswith(("/", "~/")):
            raise UsageError(f"root {self.root!r} is not a folder of the device", hint="begin it with / or ~/")
        check_options(self.cores, self.environment)

    @property
    @abstractmethod
    def device_name(self) -> str:
        """The device, without what runs on it."""

    @abstractmethod
    def open_shell(self) -> Shell:
        """The way to the device's shell. Raises DeviceError where it cannot be opened."""

    @property
    def name(self) -> str:
        started = self.starter.name
        return self.device_name if started == "native" else f"{self.device_name}, {started}"

    @property
    def fidelity(self) -> Fidelity:
        return self.starter.fidelity

    @property
    def starter(self) -> Launcher:
        """The launcher, or the interpreter as it is there."""
        return self.launcher or Native(self.python)

    @cached_property
    def device(self) -> Device:
        """The connection, opened on first use. Raises DeviceError."""
        return Device(self.open_shell(), self.root or self.ROOT)

    @property
    def sent(self) -> Counter[str]:
        """Bytes pushed so far by kind; see `Device`."""
        return self.device.sent

    @cached_property
    def _probed(self) -> dict[tuple[str, ...], Machine]:
        return {}

    def probe(self, packages: tuple[str, ...] = ()) -> Machine:
        """What the device is, with the versions of `packages` there; asked once. Raises DeviceError."""
        if packages not in self._probed:
            self._probed[packages] = machine_of(self.run(Probe(packages)).raw, self.name)
        return self._probed[packages]

    def identity(self, libraries: tuple[str, ...]) -> dict[str, str]:
        """Processor, instruction sets and library versions, as the device says. Raises DeviceError."""
        machine = self.probe(libraries)
        return {"cpu": machine.cpu, "isa": " ".join(machine.isa), **machine.libraries}

    def run(self, work: Runnable) -> Completed:
        """Run the work on the device. Raises DeviceError where it fails (see `Transport.run`), or where another holds
        the device for longer than `lock_wait`."""
        if work.package:
            hint = "take it as the local reference, and export to onnx or gguf what the device shall run"
            raise DeviceError(f"{work.name}: needs edgekit itself, which {self.name} does not have", hint=hint)
        try:
            place = There(self.device, self.starter)
            try:
                return self._run_in(place, work)
            finally:
                self.device.remove(place.home)
        except OSError as error:  # on this side: the device's own are told by their text
            raise DeviceError(f"{work.name} could not be started: {error}") from None

    def _run_in(self, place: There, work: Runnable) -> Completed:
        device, home = self.device, place.home
        spec = json.dumps(work.wire(place)).encode()
        script = [*place.python(), place.worker(work.script), f"{home}/job.json", f"{home}/result.json"]
        line = self._supervised(place, work, script)
        device.push_job(home, {**place.files, "job.json": spec})
        limit = self.lock_wait + work.timeout + GRACE
        try:
            answer = device.ask(line, timeout=limit, hold=True)
        except DeviceError as error:
            raise DeviceError(f"{work.name}: {error.what}", hint=error.hint) from None
        state, _, rest = answer.out.decode("utf-8", "replace").strip().partition(" ")
        if state == "busy":
            what = f"{self.device_name} was in use for {self.lock_wait:g} s by {rest or 'another'}"
            raise DeviceError(f"{work.name}: {what}", hint="wait for its end, or give the target a longer lock_wait")
        if state != "done":
            raise ended_badly(work.name, self.device_name, device.root, answer.code, answer.err)
        code, begin, end = rest.split()
        return self._collect(place, work, int(code), float(end) - float(begin), answer.err)

    def _supervised(self, place: There, work: Runnable, script: list[str]) -> str:
        """The line that runs the work under `supervise.sh`."""
        variables = {**pools(work.threads), **self.environment}
        mask = f"{sum(1 << core for core in set(self.cores)):x}"
        user = os.environ.get("USER") or os.getuid()  # the user of a container may have no name
        holder = f"{user}@{socket.gethostname()}"
        limits = [str(max(1, math.ceil(limit))) for limit in (self.lock_wait, work.timeout)]
        return shlex.join(
            [
                *("sh", place.worker("supervise.sh"), place.home, f"{self.device.root}/lock", *limits, holder),
                *("env", *(f"{name}={value}" for name, value in variables.items())),
                *(("taskset", mask) if self.cores else ()),
                *script,
            ]
        )

    def _collect(self, place: There, work: Runnable, code: int, seconds: float, stderr: str) -> Completed:
        """What the work left there. Raises DeviceError where it is nothing, or tells of the device's own trouble."""
        device, where = self.device, self.device_name
        if code in TIMED_OUT and seconds >= work.timeout:
            raise DeviceError(f"{work.name}: still running on {where} after {work.timeout:g} s, killed there")
        raw = device.fetch(f"{place.home}/result.json")
        if not raw:
            raise ended_badly(work.name, where, device.root, code, stderr)
        failed = worker_failed(work.name, where, device.root, self.python, raw)
        if failed is not None:
            raise failed
        counts = device.fetch(f"{place.home}/{self.starter.counts}") if self.starter.counts else b""
        counted = self.starter.instructions(counts) if counts else ()
        return Completed(raw, seconds, stderr[-TAIL:], counted)
