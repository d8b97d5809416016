"""Size, speed and score of files of one fine-tuned checkpoint, ours and those that other tools make of it, in one run.

The checkpoint is that of the students of `encoders_chain` on Banking77. Ours: int8 of its weights, and the students'
files. Of the int8 files the one that ships is the fastest on this workload, as `encoder-int8` picks it, in a measuring
of its own, so that luck does not choose. Others: what each tool's own way makes of the same folder, with the same rows
to calibrate on where it takes any; each in an environment of its own (`benchmarks/peers/`). Every file is run by
edgekit's own workers.

A file of theirs dominates one of ours where it is at least as good in all three and better in one. Sizes are exact;
speeds (each round's ratio of the two) and scores (paired, row by row) count as worse or better where their 95% interval
says so, so that a tie within noise is no excuse for ours.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.encoders_bed import THREADS, Bed
from benchmarks.encoders_chain import COURSES, Course, run_ladder, teacher_of
from benchmarks.encoders_files import BASE, SAMPLES, beside, closed, judged, own_files, peer_files, plain
from benchmarks.record import OLIVE, TORCH, Figure, peer_python, run_peer
from edgekit.artifact import Artifact
from edgekit.bench import measure
from edgekit.errors import DeviceError, StageError
from edgekit.evaluate import paired_drop
from edgekit.rounds import Measurement
from edgekit.runtimes.base import Workload
from edgekit.statistics import median_interval

__all__ = ["figures"]

DATA = "banking77"
MEGA = 1e6
MOST_LOST = 0.01  # of the accuracy: `max_drop` of `encoder-int8`


@dataclass(frozen=True)
class Tool:
    """A peer: `benchmarks/peers/SCRIPT FOLDER TEXTS.json OUT KIND` writes OUT/model.onnx for each of `kinds`."""

    script: str
    packages: tuple[str, ...]
    kinds: tuple[str, ...]


TOOLS = {
    "optimum-onnx": Tool(
        "optimum_encoder.py",
        (TORCH, "optimum-onnx[onnxruntime]==0.1.*", "transformers==4.57.*"),
        ("O2", "O3", "avx512_vnni", "O3-avx512_vnni", "static"),
    ),
    "neural-compressor": Tool(
        "neural_compressor_encoder.py",
        (TORCH, "neural-compressor[pt]==3.10.*", "transformers==5.23.*", "onnxscript==0.7.*", "onnxruntime"),
        ("dynamic", "static"),
    ),
    "olive": Tool("olive_encoder.py", OLIVE, ("int8", "int4", "static")),
}


@dataclass(frozen=True)
class Point:
    """A file, measured. `ships`: edgekit's choice for this workload. `correct`: (rows,) of the test data; `size` in
    bytes."""

    name: str
    ours: bool
    ships: bool
    correct: NDArray[np.bool_]
    measured: Measurement

    @property
    def size(self) -> int:
        return self.measured.size_bytes

    @property
    def score(self) -> float:
        return float(self.correct.mean())

    @property
    def speed(self) -> float:
        return _speed(self.measured)


def figures(bed: Bed) -> Iterator[Figure]:
    """How many of the files that we ship are dominated, and every file's speed, size and score."""
    report = run_ladder(DATA, _course(bed), bed)
    teacher = teacher_of(report, bed)
    base = plain(bed, teacher)
    students = {file.id: Artifact.open(bed.folder / f"chain-{DATA}" / "out" / file.id) for file in report.deployables}
    int8 = {name.replace(" ", "-"): file for name, file in own_files(bed, teacher).items()}
    ours = int8 | students
    theirs = peer_files(bed, base)
    made, failed = _made(bed, base, teacher)
    files = {BASE: base, **ours, **theirs, **made}
    correct = _correct(files, set(ours), failed, bed)
    ships = {_picked({BASE: base, **int8}, correct, bed), *students}
    loaded = {name: files[name] for name in correct}
    done = measure(loaded, BASE, bed.tables["test"], _workload(bed, len(loaded)), progress=bed.progress).measurements
    points = [Point(name, name in ours, name in ships, correct[name], done[name]) for name in loaded]
    own, peers = [p for p in points if p.ours], [p for p in points if not p.ours and p.name != BASE]
    reference = next(p for p in points if p.name == BASE)
    beaten = {mine.name: [p.name for p in peers if dominates(p, mine)] for mine in own}
    yield _count(points, beaten, failed)
    for point in points:
        yield _row(point, reference, beaten.get(point.name, []))


def _course(bed: Bed) -> Course:
    """The data set's; of a quick run on the few rows of the bed."""
    course = COURSES[DATA]
    if not bed.quick:
        return course
    files: dict[str, str] = {}
    bed.folder.mkdir(parents=True, exist_ok=True)
    for split, table in bed.tables.items():
        file = bed.folder / f"{split}.csv"
        with file.open("w", encoding="utf-8", newline="") as out:
            rows = zip(table.texts, table.labels or (), strict=True)
            csv.writer(out).writerows([(course.task["text"], course.task["label"]), *rows])
        files[split] = str(file)
    return replace(course, data=files)


def dominates(theirs: Point, mine: Point) -> bool:
    """Whether `theirs` is at least as small, fast and right as `mine`, and better in one; see the head of this file."""
    rounds = zip(mine.measured.rounds, theirs.measured.rounds, strict=True)
    faster = median_interval([own.p50 / peer.p50 for own, peer in rounds])
    righter = paired_drop(theirs.correct, mine.correct)
    if theirs.size > mine.size or faster.high < 1 or righter.high < 0:
        return False
    return theirs.size < mine.size or faster.low > 1 or righter.low > 0


def _made(bed: Bed, base: Artifact, teacher: Artifact) -> tuple[dict[str, Artifact], dict[str, str]]:
    """Files of the tools in environments of their own; and of those that made none, why."""
    texts = bed.folder / "peers-texts.json"
    texts.write_text(json.dumps(bed.tables["train"].spread(SAMPLES).texts), encoding="utf-8")
    made, failed = {}, {}
    for tool, how in TOOLS.items():
        python = peer_python(tool, *how.packages)
        for kind in how.kinds:
            name, out = f"{tool}-{kind}", bed.folder / f"peers-{tool}-{kind}"
            bed.progress.say(f"{name} ...")
            shutil.rmtree(out, ignore_errors=True)
            try:
                run_peer(python, how.script, teacher.path, texts, out, kind)
            except StageError as error:
                failed[name] = error.what
                bed.progress.say(f"{name}: {error.what}")
                continue
            made[name] = _adopted(bed, base, name, out / "model.onnx")
    return made, failed


def _adopted(bed: Bed, base: Artifact, name: str, made: Path) -> Artifact:
    """A tool's file in one piece (weights beside it taken in), with what a deployable has beside its model."""
    import onnx

    file = beside(bed, base, f"peer-{name}", "onnx")
    onnx.save(onnx.load(made), file.model_file)
    return closed(file)


def _picked(files: Mapping[str, Artifact], correct: Mapping[str, NDArray[np.bool_]], bed: Bed) -> str:
    """The fastest of ours on the test data's lengths, of those that lose no more than the recipe's gate allows."""
    kept = {name: files[name] for name in files if paired_drop(correct[BASE], correct[name]).value <= MOST_LOST}
    files = kept if len(kept) > 1 else files
    found = measure(files, BASE, bed.tables["test"], _workload(bed, len(files)), progress=bed.progress).measurements
    return max((name for name in files if name != BASE), key=lambda name: _speed(found[name]))


def _workload(bed: Bed, files: int) -> Workload:
    return Workload(
        batch=1,
        items=16 if bed.quick else 64,
        threads=THREADS,
        rounds=2 if bed.quick else 12,
        seconds=3.0 if bed.quick else 8.0,
        budget=0,
        at_once=files + 1,  # all take turns in every round
        throughput_batches=(),
    )


def _speed(measured: Measurement) -> float:
    return measured.speedup.value if measured.speedup else 1.0


def _correct(
    files: Mapping[str, Artifact], ours: set[str], failed: dict[str, str], bed: Bed
) -> dict[str, NDArray[np.bool_]]:
    """Which rows of the test data each file has right; those that their runtime does not load are added to `failed`."""
    correct = {}
    for name, file in files.items():
        try:
            found = judged(file, bed)
        except DeviceError as error:
            failed[name] = error.what
            continue
        correct[name] = np.asarray(found.answers == found.truth)
        bed.progress.say(f"{name}: {correct[name].mean():.4f}")
    if lost := ours & failed.keys():
        raise StageError(f"files of ours that do not run: {', '.join(sorted(lost))}")
    return correct


def _count(points: list[Point], beaten: Mapping[str, list[str]], failed: Mapping[str, str]) -> Figure:
    peers = [p for p in points if not p.ours and p.name != BASE]
    shipped = [p for p in points if p.ships]
    behind = [p.name for p in peers if any(dominates(mine, p) for mine in shipped)]
    lost = "; ".join(f"{name} by {', '.join(by)}" for name, by in beaten.items() if by)
    gone = "; ".join(f"{name}: {why}" for name, why in failed.items())
    told = ", ".join(f"{p.name} {p.size / MEGA:.1f} MB {p.speed:.2f}x {p.score:.4f}" for p in points)
    return Figure(
        figure="peers.dominated_points",
        value=sum(bool(beaten[p.name]) for p in shipped),
        unit=f"of {len(shipped)} files",
        against=", ".join(p.name for p in peers),
        n=len(points[0].correct),
        conditions=f"Banking77, batch 1, {THREADS} threads, lengths of the test set; ships: "
        f"{', '.join(p.name for p in shipped)}; dominated, of these and what was not picked: {lost or 'none'}; "
        f"ours dominate {len(behind)} of {len(peers)}; {told}{f'; no file that loads: {gone}' if gone else ''}",
    )


def _row(point: Point, reference: Point, beaten_by: list[str]) -> Figure:
    """A line of the table."""
    speed, lost = point.measured.speedup, paired_drop(reference.correct, point.correct)
    drop = "" if point is reference else f", lost {lost.value:.4f} [{lost.low:.4f}, {lost.high:.4f}]"
    whose = "theirs" if not point.ours else "ours" if point.ships else "ours, not picked here"
    by = f"; dominated by {', '.join(beaten_by)}" if beaten_by else ""
    return Figure(
        figure=f"peers.{point.name}",
        value=point.speed,
        low=speed.low if speed else None,
        high=speed.high if speed else None,
        unit="x",
        against="the teacher in ONNX Runtime fp32, fully optimized",
        n=len(point.correct),
        conditions=f"{whose}: {point.size / MEGA:.2f} MB, accuracy {point.score:.4f}{drop}{by}",
    )
