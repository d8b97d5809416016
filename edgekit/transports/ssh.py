"""A machine behind the system's `ssh`: a board, a server. One connection is shared by all lines (ControlMaster)."""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
import weakref
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from edgekit.errors import DeviceError, UsageError
from edgekit.transports.base import last_line
from edgekit.transports.remote import Remote

__all__ = ["Ssh"]

CONNECT_SECONDS = 10
OPTIONS = {
    "BatchMode": "yes",  # never ask
    "StrictHostKeyChecking": "yes",
    "UpdateHostKeys": "no",
    "ConnectTimeout": str(CONNECT_SECONDS),
    "ServerAliveInterval": "5",  # a line that broke without a word is noticed
    "ServerAliveCountMax": "3",
    "ControlMaster": "auto",
    "ControlPersist": "60",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "PermitLocalCommand": "no",
}


@dataclass(frozen=True)
class Ssh(Remote):
    """A host by name or address, or an alias of ~/.ssh/config. `port`: 0 leaves it to ssh and that file; `key`: the
    private key's file; `known_hosts`: the file with the host's key. Without them, the user's own. The host is always
    checked. Raises UsageError for an impossible host or user."""

    ROOT: ClassVar[str] = "~/.cache/edgekit"

    host: str
    port: int = 0
    user: str = ""
    key: Path | None = None
    known_hosts: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for what, value in (("host", self.host), ("user", self.user)):
            if value.startswith("-") or re.search(r"\s", value):
                raise UsageError(f"{what} {value!r} would be read as an option of ssh")
        if not self.host:
            raise UsageError("an ssh target needs a host")

    @property
    def device_name(self) -> str:
        user, port = f"{self.user}@" if self.user else "", f":{self.port}" if self.port else ""
        return f"ssh {user}{self.host}{port}"

    def open_shell(self) -> SshShell:
        return SshShell(replace(self))  # a copy, or each would keep the other alive, and the connection open


class SshShell:
    """Lines through `ssh`. The shared connection's socket lies in a private folder, and ends with this object."""

    install = "apt install openssh-client"

    def __init__(self, target: Ssh) -> None:
        self.target = target
        folder = tempfile.TemporaryDirectory(
            prefix="ek-", ignore_cleanup_errors=True
        )  # short: sockets have 100 letters
        self.control = f"{folder.name}/m"
        self._base = ["ssh", *_options(target), *_option("ControlPath", self.control)]
        goodbye = [*self._base, "-O", "exit", "--", target.host]
        weakref.finalize(self, _hang_up, goodbye, folder)

    @property
    def name(self) -> str:
        return self.target.device_name

    def command(self, line: str) -> list[str]:
        """See `Shell.command`. The user's own shell there may be any: it only starts a POSIX one."""
        return [*self._base, "-T", "--", self.target.host, f"exec sh -c {shlex.quote(line)}"]

    def failure(self, stderr: str) -> DeviceError:
        """See `Shell.failure`."""
        target, why = self.target, last_line(stderr)
        port = f"-p {target.port} " if target.port else ""
        at = target.host if target.port in (0, 22) else f"[{target.host}]:{target.port}"
        known = str(target.known_hosts or "~/.ssh/known_hosts")
        login = f"{target.user}@{target.host}" if target.user else target.host
        if "IDENTIFICATION HAS CHANGED" in stderr:
            hint = f"if you know why: ssh-keygen -R {shlex.quote(at)} -f {known}, then as for a new host"
            return DeviceError(
                f"{self.name}: its host key changed, which may mean that someone is in between", hint=hint
            )
        if "Host key verification failed" in stderr:
            hint = f"ssh-keyscan {port}{target.host} >> {known}, after comparing the key with the one on the device"
            return DeviceError(f"{self.name}: its host key is not known here", hint=hint)
        if "UNPROTECTED PRIVATE KEY" in stderr or "no such identity" in stderr:
            hint = f"check that it is there; others must not read it: chmod 600 {target.key or '~/.ssh/id_*'}"
            return DeviceError(f"{self.name}: the private key cannot be used", hint=hint)
        if "Permission denied" in stderr:
            key = f"-i {target.key} " if target.key else ""
            hint = f"ssh-copy-id {key}{port}{login}"
            return DeviceError(f"{self.name}: does not take the key ({why})", hint=hint)
        if UNREACHABLE.search(stderr):
            hint = f"is it on, and the address right? ssh -v {port}{login}"
            return DeviceError(f"{self.name}: unreachable ({why})", hint=hint)
        return DeviceError(
            f"{self.name}: the connection broke ({why or 'ssh ended without a word'})",
            hint=f"what ran there is killed by the device itself; try ssh {port}{login}",
        )


UNREACHABLE = re.compile(
    "Could not resolve|No route to host|Connection refused|Network is unreachable|[Cc]onnect.*timed out|banner exchange"
)


def _options(target: Ssh) -> list[str]:
    found = ["-p", str(target.port)] if target.port else []
    for name, value in OPTIONS.items():
        found += _option(name, value)
    if target.user:
        found += ["-l", target.user]
    if target.key is not None:
        found += [*_option("IdentityFile", str(target.key)), *_option("IdentitiesOnly", "yes")]
    if target.known_hosts is not None:
        found += [*_option("UserKnownHostsFile", str(target.known_hosts)), *_option("GlobalKnownHostsFile", "none")]
    return found


def _option(name: str, value: str) -> list[str]:
    """An option as ssh's configuration has it: a path may have spaces in it, and % is a sign of its own."""
    return ["-o", f'{name}="{value.replace("%", "%%")}"']


def _hang_up(goodbye: list[str], folder: tempfile.TemporaryDirectory[str]) -> None:
    if (Path(folder.name) / "m").exists():
        subprocess.run(goodbye, stdin=subprocess.DEVNULL, capture_output=True, timeout=CONNECT_SECONDS, check=False)
    folder.cleanup()
