"""A real OpenSSH server on the loopback interface, for tests and for the benchmark that counts what is pushed."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from edgekit.transports.ssh import Ssh

__all__ = ["SshHost", "wait_for"]

SECONDS = 20.0


def wait_for(ready: Callable[[], bool], what: str) -> None:
    """Until it is so. Raises TimeoutError."""
    end = time.monotonic() + SECONDS
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.05)


class SshHost:
    """sshd with a key, a configuration and a port of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key, self.known_hosts = folder / "user", folder / "known_hosts"
        self.user = getpass.getuser()
        for name in ("host", "user", "stranger"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(command, check=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        public = (folder / "host.pub").read_text()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public}")
        config = {
            "ListenAddress": "127.0.0.1",
            "Port": self.port,
            "HostKey": folder / "host",
            "AuthorizedKeysFile": folder / "user.pub",
            "PidFile": folder / "pid",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "yes",
        }
        (folder / "config").write_text("".join(f"{name} {value}\n" for name, value in config.items()))

    def start(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        program = shutil.which("sshd") or "/usr/sbin/sshd"
        command = [program, "-D", "-f", str(self.folder / "config"), "-E", str(self.folder / "log")]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_for((self.folder / "pid").exists, "sshd")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()

    def cut(self) -> None:
        """Kill every ssh client that talks to it, the shared connection's too."""
        for process in psutil.process_iter(["name", "cmdline"]):
            if process.info["name"] == "ssh" and str(self.port) in (process.info["cmdline"] or ()):
                process.kill()

    def connect(self, **options: object) -> Ssh:
        known: dict[str, object] = {
            "port": self.port,
            "user": self.user,
            "key": self.key,
            "known_hosts": self.known_hosts,
            "python": sys.executable,
        }
        return Ssh("127.0.0.1", **known | options)  # type: ignore[arg-type]
