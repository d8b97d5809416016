"""Latency, throughput, memory and size of files, each in its own runtime, side by side with a baseline.

A round is one sitting of fresh processes: the baseline twice (the A/A control) and the files, all loaded, taking turns
in bursts of milliseconds on the same examples (`runtimes/workers/duet_worker.py`). Inferences of one example that lie
side by side are paired; a round's figure is the median of its pairs. Rounds are what statistics counts: a process has a
speed of its own (its memory, its threads' places), so pairs of one round are not independent of each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgekit.artifact import Artifact
from edgekit.data.table import Table
from edgekit.errors import DataError, DeviceError, UsageError
from edgekit.jobs import Call, Inputs, Job, Phase, Sitting
from edgekit.machine import Machine
from edgekit.progress import Progress, Silent
from edgekit.report.schema import Conditions, LengthSummary, RuntimeInfo
from edgekit.rounds import Bench, Block, Kind, Measurement, summarize
from edgekit.running import limit_for, read_samples, threads_for
from edgekit.runtimes import RUNTIMES, Runtime, Runtimes, Samples, Workload, runtime_of
from edgekit.runtimes.base import Cycle, inputs_of, read_sitting, task_of
from edgekit.runtimes.token_ids import token_ids, tokenized
from edgekit.schedule import batches, choose_rows, fixed_length, groups
from edgekit.tasks.encoders import of_pictures, rows_of
from edgekit.transports import LOCAL, Transport

__all__ = ["Bench", "Block", "Decided", "Measurement", "Session", "measure", "run_session"]

Decided = Callable[["Bench"], bool]
START_SECONDS = 60.0  # of a sitting's time limit, for each file: to start and load it
FLOW_ROUNDS = 6  # of throughput: the fewest that have a 95% interval
FLOW_SECONDS = 0.5  # that the files of such a round take turns, at most


@dataclass
class Session:
    """What stays the same through a measurement, and the blocks so far. `feed`: a file's inputs, of which `items` rows
    are timed; `phase`: what is timed of a language model."""

    deployables: Mapping[str, Artifact]
    baseline: str
    feed: Callable[[Artifact], Inputs]
    items: int
    workload: Workload
    transport: Transport
    runtimes: Runtimes
    machine: Machine
    conditions: Conditions
    phase: Phase | None = None
    blocks: list[Block] = field(default_factory=list)

    def runtime(self, name: str) -> Runtime:
        return runtime_of(self.deployables[name], self.runtimes)


def measure(
    deployables: Mapping[str, Artifact],
    baseline: str,
    table: Table,
    workload: Workload,
    *,
    progress: Progress | None = None,
    transport: Transport = LOCAL,
    runtimes: Runtimes = RUNTIMES,
    decided: Decided | None = None,
) -> Bench:
    """Measure files against `deployables[baseline]` on examples of `table`, each by the one of `runtimes` that runs it.

    After `workload.rounds` rounds it goes on until `decided` says so, or the rounds took `workload.budget` seconds.
    Ctrl-C ends it too, once there is a whole round (or, where instructions are counted, a whole file): that is kept,
    and noted; before, KeyboardInterrupt is raised. Where the transport emulates, instructions are counted and nothing
    is timed. Raises UsageError for an unknown baseline, a file that none of `runtimes` takes, or a length or
    batch that a file does not take, DataError for an empty table, DeviceError where a file cannot be run.
    """
    if baseline not in deployables:
        raise UsageError(f"the baseline {baseline!r} is not among the files", hint=f"one of: {', '.join(deployables)}")
    if len(table) == 0:
        raise DataError(f"{table.name} is empty: nothing to time")
    _check_workload(deployables, workload, runtimes)
    return run_session(_session(deployables, baseline, table, workload, transport, runtimes), progress, decided)


def run_session(session: Session, progress: Progress | None = None, decided: Decided | None = None) -> Bench:
    """Measure what a session is about; see `measure`."""
    watch = progress or Silent()
    interrupted = False
    try:
        if session.transport.fidelity == "emulated":
            _counts(session, watch)
        else:
            _rounds(session, watch, decided)
            _throughput(session, watch)
    except KeyboardInterrupt:
        if not session.blocks:
            raise
        interrupted = True
        watch.say("stopped: the figures are of what was measured until now")
    return _summary(session, interrupted=interrupted)


def _session(
    deployables: Mapping[str, Artifact],
    baseline: str,
    table: Table,
    workload: Workload,
    transport: Transport,
    runtimes: Runtimes,
) -> Session:
    workload = workload.model_copy(update={"threads": workload.threads or threads_for(transport)})
    texts = rows_of(table, task_of(deployables[baseline]).kind)
    rows = choose_rows(texts, workload)
    fed = fixed_length(texts.take(rows), workload.length) if workload.length else texts.take(rows)
    conditions = Conditions(
        data=table.name,
        n=len(table),
        items=len(rows),
        batch=workload.batch,
        threads=workload.threads,
        rounds=workload.rounds,
        length=workload.length,
        tokens=_lengths(deployables[baseline], fed, workload),
        transport=transport.name,
        fidelity=transport.fidelity,
    )
    return Session(
        deployables,
        baseline,
        lambda artifact: inputs_of(artifact, fed, workload.length),
        len(rows),
        workload,
        transport,
        runtimes,
        transport.probe(),
        conditions,
    )


def _summary(session: Session, *, interrupted: bool = False) -> Bench:
    rounds = len({block.round for block in session.blocks if block.kind == "latency"})
    conditions = session.conditions.model_copy(update={"rounds": rounds})
    return summarize(
        session.deployables, session.baseline, session.blocks, conditions, session.machine, interrupted=interrupted
    )


def _check_workload(deployables: Mapping[str, Artifact], workload: Workload, runtimes: Runtimes) -> None:
    for name, artifact in deployables.items():
        runtime = runtime_of(artifact, runtimes)
        longest = task_of(artifact).max_length
        if workload.length and of_pictures(task_of(artifact).kind):
            raise UsageError("every picture has the same number of tokens", hint="leave the length out")
        if (workload.length or 0) > longest:
            raise UsageError(f"a length of {workload.length} tokens cannot be timed: {name} takes at most {longest}")
        if workload.batch > 1 and not runtime.batches:
            what = f"{name}: {runtime.name} is timed one example at a time"
            raise UsageError(what, hint="leave it out, or measure with batch 1")


def _counts(session: Session, progress: Progress) -> None:
    """Instructions of every file, the baseline's first."""
    names = sorted(session.deployables, key=lambda name: name != session.baseline)
    for name in progress.track(names, "counting instructions", len(names)):
        session.blocks.append(_count(session, name))


def _rounds(session: Session, progress: Progress, decided: Decided | None) -> None:
    """Whole rounds until the workload is satisfied. The budget is of the sittings: waiting for a device is free."""
    workload, spent = session.workload, 0.0
    least = workload.rounds
    most = least + (1000 if workload.budget and decided else 0)
    for number in progress.track(range(most), "measuring", least):
        extra = number >= least
        if extra and (spent > workload.budget or (decided and decided(_summary(session)))):
            break
        found: list[Block] = []  # half a round compares nothing
        for group in groups(tuple(session.deployables), session.baseline, workload.at_once):
            blocks = _sitting(session, "latency", number, group, workload.batch)
            spent += blocks[0].seconds
            found += blocks
        session.blocks += found


def _throughput(session: Session, progress: Progress) -> None:
    """Rounds at each batch, without a control."""
    workload = session.workload
    plan = [
        (number, batch, group)
        for number in range(FLOW_ROUNDS)
        for batch in workload.throughput_batches
        for group in batches(
            [name for name in session.deployables if session.runtime(name).batches or batch == 1], workload.at_once
        )
    ]
    for number, batch, group in progress.track(plan, "throughput", len(plan)):
        session.blocks += _sitting(session, "throughput", number, group, batch)


def _sitting(session: Session, kind: Kind, number: int, group: Sequence[str], batch: int) -> list[Block]:
    """One block for each file of the group; of latency, the second one's is of kind "control". Raises DeviceError."""
    workload, call = session.workload, _call(session, "latency", batch)
    seconds = min(workload.seconds, FLOW_SECONDS) if kind == "throughput" else workload.seconds
    jobs = tuple(_job(session, name, call) for name in group)
    items = session.items // batch
    timeout = START_SECONDS * len(jobs) + 20 * seconds
    sitting = Sitting(jobs, items, seconds, timeout, seed=workload.seed + number)
    completed = session.transport.run(sitting)
    members, cycles = read_sitting(completed.raw)
    found = [_parse(session, name, raw) for name, raw in zip(group, members, strict=False)]  # first, what failed any
    if len(found) < len(group):
        raise DeviceError(f"{group[len(found)]}: it could not be started beside {', '.join(group[: len(found)])}")
    kinds: list[Kind] = [kind] * len(group)
    if kind == "latency":
        kinds[1] = "control"
    return [
        _turns(name, own, number, batch, samples, cycles, items, completed.seconds)
        for name, own, samples in zip(group, kinds, found, strict=True)
    ]


def _count(session: Session, name: str) -> Block:
    """Instructions of a file. Raises DeviceError, with the file's id.

    The job does not tokenize: a tokenizer's hash tables begin at random, and the heap's layout with them.
    """
    job = tokenized(_job(session, name, _call(session, "count", 1)))
    try:
        completed = session.transport.run(job)
    except DeviceError as error:
        raise DeviceError(f"{name}: {error.what}", hint=error.hint) from None
    samples = _parse(session, name, completed.raw)
    found = _block(name, "count", 0, 1, (), samples, completed.seconds)
    return found.model_copy(update={"instructions": completed.instructions})


def _job(session: Session, name: str, call: Call) -> Job:
    artifact = session.deployables[name]
    return session.runtime(name).job(artifact, session.feed(artifact), call)


def _call(session: Session, mode: str, batch: int) -> Call:
    workload, counted = session.workload, min(8, session.items)
    return Call(
        "count" if mode == "count" else "latency",
        1 if mode == "count" else workload.threads,  # the counter of instructions is not atomic
        batch=batch,
        warmup=counted if mode == "count" else -(-workload.warmup // batch),  # a length's first inference costs more
        iterations=counted if mode == "count" else None,
        timeout=limit_for(session.transport, 600.0 + 20 * workload.seconds),
        phase=session.phase,
    )


def _parse(session: Session, name: str, raw: bytes) -> Samples:
    try:
        return read_samples(session.runtime(name), raw, session.transport)
    except DeviceError as error:
        raise DeviceError(f"{name}: {error.what}", hint=error.hint) from None


def _check_times(name: str, samples: Samples) -> None:
    times = samples.wall_ms
    if not (len(times) and len(samples.cpu_ms) in (0, len(times)) and times.min() > 0):  # a page has no CPU times
        raise DeviceError(f"{name}: {samples.runtime} returned no usable times")


def _turns(
    name: str,
    kind: Kind,
    number: int,
    batch: int,
    samples: Samples,
    cycles: Sequence[Cycle],
    items: int,
    seconds: float,
) -> Block:
    """A member's block of the cycles that count. Raises DeviceError where times and cycles do not match."""
    _check_times(name, samples)
    done = [(cycle, (cycle.start + at) % items) for cycle in cycles for at in range(cycle.count)]
    if len(done) != len(samples.wall_ms):
        raise DeviceError(f"{name}: {len(samples.wall_ms)} times for {len(done)} inferences")
    counted = np.array([not cycle.warm for cycle, _ in done])
    kept = tuple(item for cycle, item in done if not cycle.warm)
    block = _block(name, kind, number, batch, kept, samples, seconds)
    wall = samples.wall_ms[counted]
    cpu = samples.cpu_ms[counted] if len(samples.cpu_ms) else samples.cpu_ms
    return block.model_copy(update={"wall_ms": tuple(wall.tolist()), "cpu_ms": tuple(cpu.tolist())})


def _block(
    name: str, kind: Kind, number: int, batch: int, items: tuple[int, ...], samples: Samples, seconds: float
) -> Block:
    return Block(
        id=name,
        kind=kind,
        round=number,
        batch=batch,
        items=items,
        wall_ms=tuple(samples.wall_ms.tolist()),
        cpu_ms=tuple(samples.cpu_ms.tolist()),
        load_ms=samples.load_ms,
        first_ms=samples.first_ms,
        peak_rss_bytes=samples.peak_rss_bytes,
        seconds=seconds,
        runtime=RuntimeInfo(name=samples.runtime, version=samples.version, providers=samples.providers),
    )


def _lengths(artifact: Artifact, fed: Table, workload: Workload) -> LengthSummary | None:
    """Tokens per timed example, by the baseline's tokenizer; None where it lies inside the model file. Of pictures, as
    many as each is cut into."""
    if of_pictures(task_of(artifact).kind):
        length = task_of(artifact).max_length
        return LengthSummary(min=length, p50=length, p90=length, max=length)
    if not (artifact.path / "tokenizer.json").is_file():
        return None
    counts = [len(ids) for ids, _ in token_ids(artifact, inputs_of(artifact, fed, workload.length))]
    p50, p90 = (float(v) for v in np.percentile(counts, (50, 90)))
    return LengthSummary(min=min(counts), p50=p50, p90=p90, max=max(counts))
