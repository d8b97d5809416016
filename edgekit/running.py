"""What a transport's machine means for a job: its threads, its time limit, and what a result from there says."""

from __future__ import annotations

from edgekit.errors import DeviceError
from edgekit.machine import MAX_THREADS
from edgekit.runtimes.base import MissingRuntimeError, Runtime, Samples
from edgekit.transports import LOCAL, Transport

__all__ = ["limit_for", "read_samples", "threads_for"]

SLOWER = 60.0  # times that an emulated core is slower than this one, at most (measured: 30 to 60)


def threads_for(transport: Transport) -> int:
    """Threads of an inference unless the user says otherwise: the cores that the target may use, else the physical
    ones there, at most four. Raises DeviceError where the machine cannot be asked."""
    given = getattr(transport, "cores", ())  # a page and Node have none to choose
    return len(given) or min(transport.probe().cores, MAX_THREADS)


def limit_for(transport: Transport, seconds: float) -> float:
    """A time limit that takes `seconds` on a machine as it is."""
    return seconds * SLOWER if transport.fidelity == "emulated" else seconds


def read_samples(runtime: Runtime, raw: bytes, transport: Transport) -> Samples:
    """`runtime.parse(raw)`; a runtime that this machine lacks is told with the command that installs it here."""
    try:
        return runtime.parse(raw)
    except MissingRuntimeError as error:
        raise DeviceError(error.what, hint=runtime.install if transport.name == LOCAL.name else "") from None
