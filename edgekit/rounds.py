"""From raw blocks to figures: pairs within a round, ratios over rounds. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.artifact import Artifact, Format, Frozen
from edgekit.explain import Subject, explain, precision_of
from edgekit.machine import Machine
from edgekit.report.schema import (
    Conditions,
    Control,
    Instructions,
    Latency,
    RoundRatio,
    RuntimeInfo,
    Speedup,
    Throughput,
)
from edgekit.statistics import Interval, median_interval

__all__ = ["Bench", "Block", "Kind", "Measurement", "over_rounds", "round_ratios", "summarize"]

Kind = Literal["latency", "control", "throughput", "count"]
FLOAT = NDArray[np.float64]
FEWEST_ROUNDS = 6  # for a 95% interval of a median


class Block(Frozen):
    """One file in one process: raw samples, in milliseconds. Sample i is of batch `items[i]` of the timed examples;
    blocks of one round have the same items, and sample i of each was taken in the same cycle.

    `seconds`: the whole process (of a sitting, all of it) with its start.
    """

    id: str
    kind: Kind
    round: int
    batch: int
    items: tuple[int, ...]
    wall_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...]
    load_ms: float
    first_ms: float
    peak_rss_bytes: int
    seconds: float
    runtime: RuntimeInfo
    instructions: tuple[int, ...] = ()


class Measurement(Frozen):
    """A file, measured. `speedup` and `rounds` are empty for the baseline itself; times are None where emulated.
    Of a file that an interrupted count never reached, all but its size is."""

    id: str
    format: Format
    precision: str
    size_bytes: int
    latency_ms: Latency | None
    speedup: Speedup | None
    rounds: tuple[RoundRatio, ...] = ()
    throughput: tuple[Throughput, ...] = ()
    load_ms: float | None
    first_ms: float | None
    peak_rss_bytes: int | None
    instructions: Instructions | None = None
    runtime: RuntimeInfo | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bench:
    """All of a measurement: figures by id, the A/A control (None where emulated), what was fed, and the raw blocks."""

    measurements: dict[str, Measurement]
    control: Control | None
    conditions: Conditions
    blocks: tuple[Block, ...]
    interrupted: bool = False

    @property
    def control_rounds(self) -> tuple[RoundRatio, ...]:
        return self.control.rounds if self.control is not None else ()


def summarize(
    deployables: Mapping[str, Artifact],
    baseline: str,
    blocks: Sequence[Block],
    conditions: Conditions,
    machine: Machine,
    *,
    interrupted: bool = False,
) -> Bench:
    """The figures of all files, measured on `machine`."""
    found = {name: _measurement(name, deployables[name], baseline, blocks) for name in deployables}
    noted = {name: _noted(found[name], deployables, found, conditions, machine) for name in found}
    control = None
    if rounds := round_ratios(blocks, baseline, baseline):
        control = Control(**over_rounds(rounds).model_dump(), rounds=rounds)
    return Bench(noted, control, conditions, tuple(blocks), interrupted)


def round_ratios(blocks: Sequence[Block], baseline: str, name: str) -> tuple[RoundRatio, ...]:
    """A file's ratio in each round; the baseline's is that of its control to it.

    A round may have several sittings, each with a baseline of its own. The first block of the file that follows it is
    held against it, the second against its control, and the round's figures are the geometric means of both.
    """
    found: list[list[RoundRatio]] = []
    unused: list[Block] = []  # blocks of the baseline in this sitting
    for block in blocks:
        if block.id == baseline and block.kind == "latency":
            unused = [block]
            found.append([])
        elif block.id == baseline and block.kind == "control":
            if name == baseline:
                found[-1].append(_ratio(unused[0], block))
            unused.append(block)
        elif block.id == name and block.kind == "latency":
            found[-1].append(_ratio(unused.pop(0), block))
    return tuple(_mean(ratios) for ratios in found if ratios)


def _ratio(baseline: Block, other: Block) -> RoundRatio:
    """Time of `other` / time of `baseline` in one round; samples are paired by their place.

    p50 and cpu: median of the pairs' ratios. p90, p99: ratio of the percentiles, which belong to no pair.
    """
    count = min(len(baseline.wall_ms), len(other.wall_ms))
    ours, theirs = np.asarray(other.wall_ms[:count]), np.asarray(baseline.wall_ms[:count])
    cpu_ours, cpu_theirs = np.asarray(other.cpu_ms[:count]), np.asarray(baseline.cpu_ms[:count])
    seen = (cpu_ours > 0) & (cpu_theirs > 0)  # the clock of CPU time may be too coarse for one inference
    return RoundRatio(
        p50=_median_ratio(ours, theirs),
        p90=float(np.percentile(ours, 90) / np.percentile(theirs, 90)),
        p99=float(np.percentile(ours, 99) / np.percentile(theirs, 99)),
        cpu=_median_ratio(cpu_ours[seen], cpu_theirs[seen]) if seen.any() else None,
        pairs=count,
    )


def _mean(ratios: Sequence[RoundRatio]) -> RoundRatio:
    """Geometric means; the pairs are counted together."""
    figures = {
        name: float(np.exp(np.mean(np.log(values)))) if None not in values else None
        for name in ("p50", "p90", "p99", "cpu")
        for values in [[getattr(ratio, name) for ratio in ratios]]
    }
    return RoundRatio.model_validate({**figures, "pairs": sum(ratio.pairs for ratio in ratios)})


def _median_ratio(ours: FLOAT, theirs: FLOAT) -> float:
    return float(np.exp(np.median(np.log(ours) - np.log(theirs))))


def over_rounds(rounds: Sequence[RoundRatio]) -> Interval:
    """How many times faster, over rounds: median and interval of 1 / p50."""
    return median_interval([1.0 / ratio.p50 for ratio in rounds])


def _measurement(name: str, artifact: Artifact, baseline: str, blocks: Sequence[Block]) -> Measurement:
    mine = [b for b in blocks if b.id == name]
    timed = [b for b in mine if b.kind == "latency"]
    rounds = () if name == baseline else round_ratios(blocks, baseline, name)
    return Measurement(
        id=name,
        format=artifact.format,
        precision=precision_of(artifact),
        size_bytes=artifact.size_bytes,
        latency_ms=_latency(timed),
        speedup=Speedup(against=baseline, **over_rounds(rounds).model_dump()) if rounds else None,
        rounds=rounds,
        throughput=_throughput([b for b in mine if b.kind == "throughput"]),
        load_ms=float(np.median([b.load_ms for b in timed])) if timed else None,
        first_ms=float(np.median([b.first_ms for b in timed])) if timed else None,
        peak_rss_bytes=max((b.peak_rss_bytes for b in timed), default=0) or None,
        instructions=_instructions([b for b in mine if b.kind == "count"]),
        runtime=mine[0].runtime if mine else None,
    )


def _latency(blocks: Sequence[Block]) -> Latency | None:
    """Percentiles of all inferences; each one's interval over blocks (each is a fresh process)."""
    if not blocks:
        return None
    wall = np.concatenate([np.asarray(b.wall_ms) for b in blocks])
    p50, p90, p99 = (float(v) for v in np.percentile(wall, (50, 90, 99)))
    spread = {
        f"p{q}_interval": (found.low, found.high)
        for q in (50, 90, 99)
        for found in [median_interval([float(np.percentile(b.wall_ms, q)) for b in blocks])]
    }
    return Latency.model_validate({"p50": p50, "p90": p90, "p99": p99, "n": len(wall), **spread})


def _throughput(blocks: Sequence[Block]) -> tuple[Throughput, ...]:
    """By batch, the median of the rounds' rates, and its interval."""
    rates: defaultdict[int, list[float]] = defaultdict(list)
    for block in blocks:
        rates[block.batch].append(1000.0 * block.batch / float(np.mean(_per_item(block))))
    found = {batch: median_interval(rates[batch]) for batch in sorted(rates)}
    return tuple(
        Throughput(batch=batch, per_second=rate.value, interval=(rate.low, rate.high)) for batch, rate in found.items()
    )


def _per_item(block: Block) -> FLOAT:
    """Median over the passes, (items,): one preempted inference does not count."""
    wall, items = np.asarray(block.wall_ms), np.asarray(block.items)
    return np.asarray([np.median(wall[items == item]) for item in np.unique(items)], dtype=np.float64)


def _instructions(blocks: Sequence[Block]) -> Instructions | None:
    counted = [count for block in blocks for count in block.instructions]
    if not counted:
        return None
    middle = float(np.median(counted))
    return Instructions(median=middle, spread=(max(counted) - min(counted)) / middle if middle else 0.0, n=len(counted))


def _noted(
    found: Measurement,
    artifacts: Mapping[str, Artifact],
    all_found: Mapping[str, Measurement],
    conditions: Conditions,
    machine: Machine,
) -> Measurement:
    """The measurement with its notes: too few rounds, and a quantized file that did not repay its cost."""
    if found.speedup is None or found.latency_ms is None:
        return found
    notes = []
    if conditions.rounds < FEWEST_ROUNDS:
        notes.append(f"{conditions.rounds} rounds are too few for a 95% interval: the speedup's is the range of rounds")
    parents = set(artifacts[found.id].manifest.parents.values())
    against = found.speedup.against
    parent = all_found[next((n for n, a in artifacts.items() if a.key in parents and n != found.id), against)]
    times = found.speedup.value / (parent.speedup.value if parent.speedup is not None else 1.0)
    tokens = conditions.tokens.p50 if conditions.tokens is not None else None
    subjects = (_subject(found, artifacts[found.id]), _subject(parent, artifacts[parent.id]))
    notes += explain(*subjects, machine, speedup=times, tokens=tokens)
    return found.model_copy(update={"notes": tuple(notes)})


def _subject(found: Measurement, artifact: Artifact) -> Subject:
    embeddings = str(artifact.manifest.config.get("embeddings", ""))
    p50 = found.latency_ms.p50 if found.latency_ms is not None else 0.0
    return Subject(found.id, found.precision, p50, found.size_bytes, embeddings)
