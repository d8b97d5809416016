"""A phone or board behind the system's `adb` (Android 8 or newer: exit codes come with its shell protocol 2)."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import ClassVar

from edgekit.errors import DeviceError, UsageError
from edgekit.transports.base import last_line
from edgekit.transports.remote import Remote

__all__ = ["Adb"]

CONNECT_SECONDS = 20


@dataclass(frozen=True)
class Adb(Remote):
    """A device by its serial, as `adb devices` shows it (empty: the only one); HOST:PORT is connected to first. A phone
    has no Python: give a `launcher` that brings it. Raises UsageError for an impossible serial."""

    ROOT: ClassVar[str] = "/data/local/tmp/edgekit"

    serial: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.serial.startswith("-") or re.search(r"\s", self.serial):
            raise UsageError(f"serial {self.serial!r} would be read as an option of adb")

    @property
    def device_name(self) -> str:
        return f"adb {self.serial}".strip()

    def open_shell(self) -> AdbShell:
        shell = AdbShell(self.serial)
        if ":" in self.serial:
            shell.connect()
        return shell


class AdbShell:
    """Lines through `adb shell`."""

    install = "apt install adb, or Android's platform-tools"

    def __init__(self, serial: str) -> None:
        self.serial = serial

    @property
    def name(self) -> str:
        return f"adb {self.serial}".strip()

    def command(self, line: str) -> list[str]:
        """See `Shell.command`."""
        return ["adb", *(("-s", self.serial) if self.serial else ()), "shell", "-T", line]

    def connect(self) -> None:
        """Let adb's server connect to a device over the network. Raises DeviceError."""
        command = ["adb", "connect", self.serial]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=CONNECT_SECONDS, check=False
            )
        except FileNotFoundError:
            raise DeviceError("adb is not installed here", hint=self.install) from None
        except subprocess.TimeoutExpired:
            raise self._unreachable(f"no answer within {CONNECT_SECONDS} s") from None
        said = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
        if "connected to" not in said:  # or "already connected to"; its exit code is 0 all the same on older ones
            raise self._unreachable(said)

    def failure(self, stderr: str) -> DeviceError:
        """See `Shell.failure`."""
        why = last_line(stderr) or "adb ended without a word"
        if "unauthorized" in stderr:
            hint = "unlock it and accept this machine's key; if it does not ask: adb reconnect"
            return DeviceError(f"{self.name}: does not trust this machine yet", hint=hint)
        if "more than one device" in stderr:
            return DeviceError("adb: several devices are there", hint="give the target a serial: adb devices -l")
        if "no devices" in stderr or "not found" in stderr:
            hint = "plug it in, switch USB debugging on, and see: adb devices -l"
            return DeviceError(f"{self.name}: no such device is there ({why})", hint=hint)
        if "offline" in stderr:
            return DeviceError(f"{self.name}: offline", hint="adb reconnect")
        if "daemon" in stderr:
            return DeviceError(f"adb's own server does not answer ({why})", hint="adb kill-server; adb start-server")
        return DeviceError(
            f"{self.name}: the device went away ({why})",
            hint="what ran there is killed by the device itself; see: adb devices -l",
        )

    def _unreachable(self, why: str) -> DeviceError:
        hint = "is it on, in this network, and listening (adb tcpip 5555, or wireless debugging)?"
        return DeviceError(f"{self.name}: unreachable ({why})", hint=hint)
