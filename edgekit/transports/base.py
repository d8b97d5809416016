"""What every transport can do: say where it leads, and run one piece of work there."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from typing import Protocol

from edgekit.errors import UsageError
from edgekit.jobs import Completed, Fidelity, Work
from edgekit.machine import Machine

__all__ = ["TAIL", "Transport", "check_options", "last_line", "pools", "why_it_ended"]

TAIL = 2000  # characters of stderr that are kept
SIGNALS = {
    signal.SIGILL: "unsupported_isa: the file or the runtime uses instructions that this processor lacks",
    signal.SIGKILL: "killed from outside: most likely out of memory",
    signal.SIGSEGV: "the runtime crashed",
    signal.SIGABRT: "the runtime gave up",
}


class Transport(Protocol):
    """A way to a machine, and how Python is started there (its launcher).

    Implementations kill what they started, on the machine itself, when work takes too long or is interrupted, and leave
    nothing behind but what they keep by digest.
    """

    @property
    def name(self) -> str:
        """Short name for reports."""

    @property
    def fidelity(self) -> Fidelity:
        """Whether times measured there mean anything."""

    def identity(self, libraries: tuple[str, ...]) -> dict[str, str]:
        """What decides the numbers there: processor, instruction sets, versions of `libraries`."""

    def probe(self, packages: tuple[str, ...] = ()) -> Machine:
        """What the machine is, with the versions of `packages` there. Raises DeviceError where it cannot be asked."""

    def run(self, work: Work) -> Completed:
        """Run the work to its end.

        Raises DeviceError for a timeout, a process that died, or one that left no result.
        """


def check_options(cores: tuple[int, ...], environment: Mapping[str, str]) -> None:
    """Raises UsageError for a core or a variable that cannot be."""
    if any(core < 0 for core in cores):
        raise UsageError(f"cores {cores}: a core's number is 0 or more")
    for name in environment:
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
            raise UsageError(f"environment: {name!r} is not a variable's name")


def pools(threads: int) -> dict[str, str]:
    """Environment that holds every thread pool to `threads`."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    return dict.fromkeys(names, str(threads)) | {"TOKENIZERS_PARALLELISM": "false"}


def last_line(text: str) -> str:
    """The last line that is not empty; "" where there is none."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def why_it_ended(code: int, stderr: str) -> str:
    """Why a process without a result ended, in a line or two; `code` is negative for a signal."""
    last = last_line(stderr)
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        why = SIGNALS.get(-code, "ended by a signal")  # type: ignore[call-overload]
        return f"{why} ({name})" + (f": {last}" if last else "")
    return last or f"exit code {code} and no result"
