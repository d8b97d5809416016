"""How long files take relative to one of them, measured by turns in fresh processes: quick, for choosing among many.

`edgekit.bench` measures what is reported, over rounds; here is one sitting for each few files, whose figures are the
median of pairs that lie milliseconds apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.artifact import Artifact
from edgekit.errors import DeviceError
from edgekit.jobs import Call, Inputs, Sitting
from edgekit.progress import Progress, Silent
from edgekit.running import limit_for, read_samples
from edgekit.runtimes import RUNTIMES, Runtimes, runtime_of
from edgekit.runtimes.base import read_sitting
from edgekit.transports import LOCAL, Transport

__all__ = ["Feed", "Relative", "relative_times"]

FLOAT = NDArray[np.float64]
START_SECONDS = 60.0  # of a sitting's time limit, for each file: to start and load it
WARMUP = 8


@dataclass(frozen=True)
class Feed:
    """What is fed, and how: `seconds` that the files of a sitting take turns, `at_once`: how many those are."""

    inputs: Inputs
    threads: int
    batch: int = 1
    seconds: float = 4.0
    at_once: int = 9


@dataclass(frozen=True)
class Relative:
    """`shares`: of each file, its time / the reference's; `reference_ms`: the reference's median; `runtime`: its name
    and version."""

    shares: dict[str, float]
    reference_ms: float
    runtime: str


def relative_times(
    files: Mapping[str, Artifact],
    reference: str,
    feed: Feed,
    *,
    transport: Transport = LOCAL,
    runtimes: Runtimes = RUNTIMES,
    progress: Progress | None = None,
) -> Relative:
    """Time `files` against `files[reference]`, which sits in each sitting. Raises DeviceError where one cannot be run,
    or the machine is emulated: times mean nothing there."""
    if transport.fidelity == "emulated":
        raise DeviceError(f"{transport.name}: times of an emulated machine mean nothing", hint="measure on a real one")
    others = [name for name in files if name != reference]
    size = feed.at_once - 1
    sittings = [others[at : at + size] for at in range(0, len(others), size)]
    shares, times, runtime = {reference: 1.0}, [], ""
    for number, names in enumerate((progress or Silent()).track(sittings, "measuring blocks", len(sittings))):
        found, runtime = _sitting([reference, *names], files, feed, number, transport, runtimes)
        base = found[0]
        times.append(np.median(base))
        for name, own in zip(names, found[1:], strict=True):
            shares[name] = float(np.exp(np.median(np.log(own) - np.log(base))))
    return Relative(shares, float(np.median(times)), runtime)


def _sitting(
    names: list[str],
    files: Mapping[str, Artifact],
    feed: Feed,
    number: int,
    transport: Transport,
    runtimes: Runtimes,
) -> tuple[list[FLOAT], str]:
    """Milliseconds of each file's inferences that count: sample i of each is of the same item and cycle."""
    limit = limit_for(transport, START_SECONDS * len(names) + 20 * feed.seconds)
    call = Call("latency", feed.threads, batch=feed.batch, warmup=WARMUP, seconds=feed.seconds, timeout=limit)
    jobs = tuple(runtime_of(files[name], runtimes).job(files[name], feed.inputs, call) for name in names)
    items = len(feed.inputs.texts) // feed.batch
    raw = transport.run(Sitting(jobs, items, feed.seconds, limit, seed=number)).raw
    members, cycles = read_sitting(raw)
    samples = [
        read_samples(runtime_of(files[name], runtimes), member, transport)
        for name, member in zip(names, members, strict=False)
    ]
    counted = np.array([not cycle.warm for cycle in cycles for _ in range(cycle.count)], dtype=bool)
    if len(samples) < len(names) or any(len(s.wall_ms) != len(counted) for s in samples):
        raise DeviceError(f"{', '.join(names)}: they could not be timed side by side", hint="is there memory for all?")
    return [s.wall_ms[counted] for s in samples], f"{samples[0].runtime} {samples[0].version}"
