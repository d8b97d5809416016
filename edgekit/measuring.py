"""From exported files to a report: accuracy in their runtimes, latency interleaved, judged by rules."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from edgekit.artifact import Artifact
from edgekit.bench import Bench, Measurement, measure
from edgekit.correctness import Correctness
from edgekit.data.table import Table
from edgekit.errors import UsageError
from edgekit.evaluate import Predictions, agreement, at_chance, correct, paired_drop, predict, score
from edgekit.gate import judge, settled
from edgekit.progress import Progress
from edgekit.report.html import render_html
from edgekit.report.markdown import render_markdown
from edgekit.report.schema import BaselineEntry, Deployable, Report, StepEntry, dump
from edgekit.rules import Rule
from edgekit.runtimes import runtime_of
from edgekit.runtimes.base import Workload, task_of
from edgekit.sample_size import sample_notes
from edgekit.targets import Target, find_target

__all__ = ["Subject", "make_report", "write_report"]


@dataclass(frozen=True)
class Subject:
    """A file to measure: the artifact, where the report says it lies, and the ids of the steps behind it."""

    artifact: Artifact
    path: str
    lineage: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answers:
    """What a file predicts, and how that compares with the labels (None where the data have none)."""

    predictions: Predictions
    correct: NDArray[np.bool_] | None
    metrics: dict[str, float]
    packed: Correctness | None = None


def make_report(
    recipe: str,
    subjects: Mapping[str, Subject],
    baseline: str,
    table: Table,
    workload: Workload,
    rules: Sequence[Rule],
    *,
    progress: Progress,
    start: float,
    target: Target | None = None,
    exports: Sequence[str] | None = None,
    steps: tuple[StepEntry, ...] = (),
    notes: tuple[str, ...] = (),
    cache: Path | None = None,
) -> tuple[Report, Bench]:
    """Measure `subjects` on `table`, at a target (default: this machine's processor), and judge the `exports` (default:
    all but the baseline) against the baseline.

    `start`: time.perf_counter() when the work began. Raises DataError and DeviceError as `predict` and `measure` do,
    and UsageError for a file that the target has no runtime for.
    """
    artifacts = {name: subject.artifact for name, subject in subjects.items()}
    where = target or find_target("cpu")
    for note in sample_notes(rules, len(table)):
        progress.say(f"note: {note}")
    machine = where.transport.probe(_libraries(artifacts, where))
    workload = workload.model_copy(update={"threads": workload.threads or where.threads})
    answers = {
        name: _answers(subjects[name].artifact, table, cache, workload.threads, where)
        for name in progress.track(list(subjects), f"accuracy on {len(table)} rows")
    }
    progress.say(f"measuring {len(subjects)} files, interleaved; keep the machine otherwise idle")
    decided = partial(settled, rules)
    bench = measure(
        artifacts,
        baseline,
        table,
        workload,
        progress=progress,
        transport=where.transport,
        runtimes=where.runtimes,
        decided=decided,
    )
    if bench.interrupted:
        notes = (*notes, f"measuring was stopped: {_whole(bench)}")
    if bench.conditions.fidelity == "emulated" and bench.measurements[baseline].instructions is None:
        notes = (*notes, "no instructions were counted: see edgekit targets")
    names = exports if exports is not None else [name for name in subjects if name != baseline]
    base = answers[baseline]
    report = Report(
        recipe=recipe,
        machine=machine,
        seconds=round(time.perf_counter() - start, 1),
        steps=steps,
        deployables=tuple(_deployable(subjects[n], bench.measurements[n], answers[n], base) for n in names),
        baseline=BaselineEntry.model_validate(_common(subjects[baseline], bench.measurements[baseline], base)),
        baseline_check=at_chance(base.predictions, table, task_of(artifacts[baseline])) if table.labels else None,
        control=bench.control,
        conditions=bench.conditions.model_copy(update={"target": where.name}),
        task=task_of(artifacts[baseline]),
        notes=notes,
    )
    return report.model_copy(update={"gate": judge(report, rules) if rules else None}), bench


def write_report(report: Report, bench: Bench, out: Path) -> None:
    """Write report.json, .md, .html and the raw samples, each in one rename. Raises UsageError where that fails."""
    samples = "".join(json.dumps(block.model_dump(mode="json")) + "\n" for block in bench.blocks)
    texts = {
        "samples.jsonl": samples,
        "report.md": render_markdown(report),
        "report.html": render_html(report),
        "report.json": dump(report),
    }
    for name, text in texts.items():
        fresh = out / f".{name}.tmp"
        try:
            out.mkdir(parents=True, exist_ok=True)
            fresh.write_text(text, encoding="utf-8")
            fresh.replace(out / name)
        except OSError as error:
            raise UsageError(f"cannot write {out / name}: {error.strerror}", hint="free some space") from None


def _libraries(artifacts: Mapping[str, Artifact], target: Target) -> tuple[str, ...]:
    """What a report names the versions of, as they are at the target: edgekit (where it is), and the runtimes'."""
    found = [name for artifact in artifacts.values() for name in runtime_of(artifact, target.runtimes).libraries]
    return tuple(dict.fromkeys(("edgekit", *found)))


def _whole(bench: Bench) -> str:
    """What there is of a measurement that was interrupted."""
    if bench.conditions.fidelity == "emulated":
        counted = [name for name, found in bench.measurements.items() if found.instructions is not None]
        return f"only {', '.join(counted)} was counted"
    return f"the figures are of {bench.conditions.rounds} rounds"


def _answers(artifact: Artifact, table: Table, cache: Path | None, threads: int, target: Target) -> Answers:
    predictions = predict(
        artifact, table, threads=threads, transport=target.transport, runtimes=target.runtimes, cache=cache
    )
    if table.labels is None:
        return Answers(predictions, None, {})
    task = task_of(artifact)
    right = correct(predictions, table, task)
    packed = Correctness.pack(right.tolist(), table.digest)
    return Answers(predictions, right, score(predictions, table, task), packed)


def _deployable(subject: Subject, measured: Measurement, mine: Answers, base: Answers) -> Deployable:
    common = _common(subject, measured, mine)
    drop = paired_drop(base.correct, mine.correct) if base.correct is not None and mine.correct is not None else None
    extra = {
        "metrics": {**mine.metrics, "agreement": agreement(base.predictions, mine.predictions)},
        "accuracy_drop": drop.model_dump() if drop else None,
        "speedup": measured.speedup.model_dump() if measured.speedup else None,
        "rounds": [ratio.model_dump() for ratio in measured.rounds],
        "lineage": subject.lineage,
    }
    return Deployable.model_validate({**common, **extra})


def _common(subject: Subject, measured: Measurement, answers: Answers) -> dict[str, JsonValue]:
    shared: dict[str, JsonValue] = measured.model_dump(exclude={"speedup", "rounds"})
    packed = answers.packed.model_dump() if answers.packed else None
    known = {"path": subject.path, "artifact": subject.artifact.content, "correctness": packed}
    return {**shared, **known, "metrics": {**answers.metrics}}
