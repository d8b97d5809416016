"""Latency, throughput, memory and size of files, each in its own runtime, interleaved with a baseline.

Every block is a fresh process that warms up and then times the same examples in the same order. A round is one block of
each file and one more of the baseline (the A/A control), in random order; the next round runs it backwards (ABBA), so
that a drift of the machine falls on all alike. One process runs at a time: waiting threads of one would slow another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.artifact import Artifact, Format, Frozen, Task
from edgekit.data.table import Table
from edgekit.errors import DataError, DeviceError, UsageError
from edgekit.explain import Subject, explain, precision_of
from edgekit.jobs import Call
from edgekit.machine import default_threads, describe
from edgekit.progress import Progress, Silent
from edgekit.report.schema import Conditions, Control, Latency, LengthSummary, RuntimeInfo, Speedup, Throughput
from edgekit.runtimes import Samples, Workload, runtime_of
from edgekit.runtimes.base import inputs_of, task_of
from edgekit.schedule import Kind, choose_rows, fixed_length, schedule
from edgekit.statistics import Interval, median_interval
from edgekit.transports import LOCAL, Transport

__all__ = ["Bench", "Block", "Measurement", "measure", "ratio_interval"]

FLOAT = NDArray[np.float64]
FEWEST_ROUNDS = 6  # for a 95% interval of a median


class Block(Frozen):
    """One process: raw samples, in milliseconds.

    `rows`: the timed examples; sample i belongs to example i modulo their number (of batches, where `batch` > 1).
    `seconds`: the whole process with its start.
    """

    id: str
    kind: Kind
    round: int
    batch: int
    rows: tuple[int, ...]
    wall_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...]
    load_ms: float
    first_ms: float
    peak_rss_bytes: int
    seconds: float
    runtime: RuntimeInfo

    @property
    def item_ms(self) -> FLOAT:
        """Median over passes, (batches,): one preempted inference does not count. Shorter if no pass was finished."""
        return _per_item(np.asarray(self.wall_ms), max(1, len(self.rows) // self.batch))


class Measurement(Frozen):
    """A file, measured. `speedup` is None for the baseline itself."""

    id: str
    format: Format
    precision: str
    size_bytes: int
    latency_ms: Latency
    speedup: Speedup | None
    throughput: Throughput | None
    load_ms: float
    first_ms: float
    peak_rss_bytes: int
    runtime: RuntimeInfo
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bench:
    """All of a run: measurements by id, the A/A control, what was fed, and the raw blocks in the order they ran."""

    measurements: dict[str, Measurement]
    control: Control
    conditions: Conditions
    blocks: tuple[Block, ...]


def measure(
    deployables: Mapping[str, Artifact],
    baseline: str,
    table: Table,
    workload: Workload,
    *,
    progress: Progress | None = None,
    transport: Transport = LOCAL,
) -> Bench:
    """Measure files against `deployables[baseline]` on examples of `table`.

    Raises UsageError for an unknown baseline, or a length or batch that a file does not take, DataError for an empty
    table, DeviceError where a file cannot be run.
    """
    if baseline not in deployables:
        raise UsageError(f"the baseline {baseline!r} is not among the files", hint=f"one of: {', '.join(deployables)}")
    if len(table) == 0:
        raise DataError(f"{table.name} is empty: nothing to time")
    _check_workload(deployables, workload)
    workload = workload.model_copy(update={"threads": workload.threads or default_threads()})
    rows = choose_rows(table, workload)
    fed = fixed_length(table.take(rows), workload.length) if workload.length else table.take(rows)
    plan = schedule(tuple(deployables), baseline, workload)
    blocks = [
        _run(kind, number, name, deployables[name], fed, rows, workload, transport)
        for kind, number, name in (progress or Silent()).track(plan, "measuring", len(plan))
    ]
    control = ratio_interval(*_paired(blocks, baseline, baseline, "control"))
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
    )
    found = {name: _summary(name, deployables[name], baseline, blocks) for name in deployables}
    noted = {name: _noted(found[name], deployables, found, conditions) for name in found}
    return Bench(noted, Control(**control.model_dump()), conditions, tuple(blocks))


def ratio_interval(first: Sequence[FLOAT], second: Sequence[FLOAT]) -> Interval:
    """Time of `first` / time of `second`: per round the ratio of summed item times, over rounds median and interval.

    Each is a list over rounds of item times (items,); items that only one of them reached are left out.
    """
    ratios = []
    for ours, theirs in zip(first, second, strict=True):
        common = min(len(ours), len(theirs))
        ratios.append(float(np.sum(ours[:common]) / np.sum(theirs[:common])))
    return median_interval(ratios)


def _check_workload(deployables: Mapping[str, Artifact], workload: Workload) -> None:
    for name, artifact in deployables.items():
        longest = task_of(artifact).max_length
        if (workload.length or 0) > longest:
            raise UsageError(f"a length of {workload.length} tokens cannot be timed: {name} takes at most {longest}")
        if workload.batch > 1 and not runtime_of(artifact).batches:
            what = f"{name}: {runtime_of(artifact).name} is timed one example at a time"
            raise UsageError(what, hint="leave it out, or measure with batch 1")


def _run(
    kind: Kind,
    number: int,
    name: str,
    artifact: Artifact,
    fed: Table,
    rows: tuple[int, ...],
    workload: Workload,
    transport: Transport,
) -> Block:
    """Run one block. Raises DeviceError, with the file's id."""
    runtime = runtime_of(artifact)
    batch = (workload.throughput_batch if kind == "throughput" else workload.batch) if runtime.batches else 1
    call = Call(
        "latency",
        workload.threads,
        batch=batch,
        warmup=-(-workload.warmup // batch),
        seconds=workload.seconds,
        timeout=300.0 + 20 * workload.seconds,
    )
    inputs = inputs_of(artifact, fed, workload.length)
    try:
        completed = transport.run(runtime.job(artifact, inputs, call))
        samples = runtime.parse(completed.raw)
    except DeviceError as error:
        raise DeviceError(f"{name}: {error.what}", hint=error.hint) from None
    if len(samples.wall_ms) == 0 or len(samples.wall_ms) != len(samples.cpu_ms) or samples.wall_ms.min() <= 0:
        raise DeviceError(f"{name}: {runtime.name} returned no usable times")
    return _block(name, kind, number, batch, rows, samples, completed.seconds)


def _block(
    name: str, kind: Kind, number: int, batch: int, rows: tuple[int, ...], samples: Samples, seconds: float
) -> Block:
    return Block(
        id=name,
        kind=kind,
        round=number,
        batch=batch,
        rows=rows,
        wall_ms=tuple(samples.wall_ms.tolist()),
        cpu_ms=tuple(samples.cpu_ms.tolist()),
        load_ms=samples.load_ms,
        first_ms=samples.first_ms,
        peak_rss_bytes=samples.peak_rss_bytes,
        seconds=seconds,
        runtime=RuntimeInfo(name=samples.runtime, version=samples.version, providers=samples.providers),
    )


def _per_item(wall: FLOAT, items: int) -> FLOAT:
    passes = len(wall) // items
    if passes == 0:
        return wall
    return np.asarray(np.median(wall[: passes * items].reshape(passes, items), axis=0), dtype=np.float64)


def _paired(blocks: Sequence[Block], baseline: str, name: str, kind: Kind) -> tuple[list[FLOAT], list[FLOAT]]:
    """Item times of the baseline and of `name` (in blocks of `kind`), by round."""
    first = {b.round: b.item_ms for b in blocks if b.id == baseline and b.kind == "latency"}
    second = {b.round: b.item_ms for b in blocks if b.id == name and b.kind == kind}
    rounds = sorted(first.keys() & second.keys())
    return [first[r] for r in rounds], [second[r] for r in rounds]


def _summary(name: str, artifact: Artifact, baseline: str, blocks: Sequence[Block]) -> Measurement:
    mine = [b for b in blocks if b.id == name and b.kind == "latency"]
    wall = np.concatenate([np.asarray(b.wall_ms) for b in mine])
    p50, p90, p99 = (float(v) for v in np.percentile(wall, (50, 90, 99)))
    speedup = None
    if name != baseline:
        found = ratio_interval(*_paired(blocks, baseline, name, "latency"))
        speedup = Speedup(against=baseline, **found.model_dump())
    return Measurement(
        id=name,
        format=artifact.format,
        precision=precision_of(artifact),
        size_bytes=artifact.size_bytes,
        latency_ms=Latency(p50=p50, p90=p90, p99=p99, n=len(wall)),
        speedup=speedup,
        throughput=_throughput([b for b in blocks if b.id == name and b.kind == "throughput"]),
        load_ms=float(np.median([b.load_ms for b in mine])),
        first_ms=float(np.median([b.first_ms for b in mine])),
        peak_rss_bytes=max(b.peak_rss_bytes for b in mine),
        runtime=mine[0].runtime,
    )


def _throughput(blocks: Sequence[Block]) -> Throughput | None:
    """The better round's rate: a rate is what the machine can do, and a neighbour only ever lowers it."""
    if not blocks:
        return None
    batch = blocks[0].batch
    return Throughput(batch=batch, per_second=max(1000.0 * batch / float(np.mean(b.item_ms)) for b in blocks))


def _noted(
    found: Measurement, artifacts: Mapping[str, Artifact], all_found: Mapping[str, Measurement], conditions: Conditions
) -> Measurement:
    """The measurement with its notes: too few rounds, and a quantized file that did not repay its cost."""
    notes = []
    if conditions.rounds < FEWEST_ROUNDS:
        notes.append(f"{conditions.rounds} rounds are too few for a 95% interval: the speedup's is the range of rounds")
    if found.speedup is not None:
        parents = set(artifacts[found.id].manifest.parents.values())
        against = found.speedup.against
        name = next((n for n, a in artifacts.items() if a.key in parents and n != found.id), against)
        parent = all_found[name]
        times = found.speedup.value / (parent.speedup.value if parent.speedup is not None else 1.0)
        tokens = conditions.tokens.p50 if conditions.tokens is not None else None
        subjects = (_subject(found, artifacts[found.id]), _subject(parent, artifacts[name]))
        notes += explain(*subjects, describe(), speedup=times, tokens=tokens)
    return found.model_copy(update={"notes": tuple(notes)})


def _subject(found: Measurement, artifact: Artifact) -> Subject:
    embeddings = str(artifact.manifest.config.get("embeddings", ""))
    return Subject(found.id, found.precision, found.latency_ms.p50, found.size_bytes, embeddings)


def _lengths(artifact: Artifact, fed: Table, workload: Workload) -> LengthSummary | None:
    """Tokens per timed example, by the baseline's tokenizer; None where it lies inside the model file."""
    from tokenizers import Tokenizer

    path = artifact.path / "tokenizer.json"
    if not path.is_file():
        return None
    task: Task = task_of(artifact)
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(workload.length or task.max_length)
    texts = list(zip(fed.texts, fed.pairs, strict=True)) if fed.pairs else list(fed.texts)
    counts = [len(encoding.ids) for encoding in tokenizer.encode_batch(texts)]
    p50, p90 = (float(v) for v in np.percentile(counts, (50, 90)))
    return LengthSummary(min=min(counts), p50=p50, p90=p90, max=max(counts))
