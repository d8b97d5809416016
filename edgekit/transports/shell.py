"""A device's shell behind a program that reaches it (ssh, adb): one line at a time, each with its own exit code."""

from __future__ import annotations

import re
import subprocess
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Protocol

from edgekit.errors import DeviceError

__all__ = ["Answer", "Feed", "Shell", "ask"]

Feed = Callable[[IO[bytes]], None]  # writes what the line reads on standard input
PARTING = 10.0  # seconds that a line may take to end once its standard input has
END = re.compile(r"\[edgekit (\d+)\]\s*\Z")


class Shell(Protocol):
    """How a line gets to a device's shell."""

    @property
    def name(self) -> str:
        """The device, for error texts."""

    @property
    def install(self) -> str:
        """The command that installs the program, for error texts."""

    def command(self, line: str) -> list[str]:
        """The command that runs one line (no newlines) in a POSIX shell there, its three streams passed on."""

    def failure(self, stderr: str) -> DeviceError:
        """What to say of a line that did not get there or did not come back, from what the program printed."""


@dataclass(frozen=True)
class Answer:
    """What a line that ran to its end left: exit code (128 + N for signal N), standard output and error."""

    code: int
    out: bytes
    err: str


def ask(shell: Shell, line: str, *, timeout: float, feed: Feed | None = None, hold: bool = False) -> Answer:
    """Run one line on the device and wait for its end, at most `timeout` seconds.

    Its standard input is what `feed` writes; with `hold` it stays open as long as this side is there. The programs use
    exit codes of their own, so the line says its code itself, last on standard error: one that did not was cut off.
    Raises DeviceError where the device was not reached, or the line was cut off or took too long.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                shell.command(f'( {line} ); echo "[edgekit $?]" >&2'),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                start_new_session=True,  # Ctrl-C is for this process, which then lets the device clean up
            )
        except FileNotFoundError as error:
            raise DeviceError(f"{error.filename} is not installed here", hint=shell.install) from None
        in_time = _attend(process, timeout, feed, hold)
        out.seek(0)
        err.seek(0)
        stdout, stderr = out.read(), err.read().decode("utf-8", "replace")
    if not in_time:
        raise DeviceError(f"{shell.name}: no answer within {timeout:g} s", hint="is it busy, or gone?")
    end = END.search(stderr)
    if end is None:
        raise shell.failure(stderr)
    return Answer(int(end[1]), stdout, stderr[: end.start()])


def _attend(process: subprocess.Popen[bytes], timeout: float, feed: Feed | None, hold: bool) -> bool:
    """Feed the process and wait for it; whether it ended in time. It never outlives this call."""
    late = threading.Event()

    def give_up() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(timeout, give_up)
    timer.daemon = True
    timer.start()
    try:
        if feed is not None and process.stdin is not None:
            with suppress(BrokenPipeError):  # it ended early, and its exit code says more
                feed(process.stdin)
        if not hold:
            _close(process)
        process.wait()
    finally:
        timer.cancel()
        _close(process)
        try:
            process.wait(PARTING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return not late.is_set()


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()
