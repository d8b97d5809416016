"""From exported files to a report: accuracy in their runtimes, latency interleaved, judged by rules."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pydantic import JsonValue

from edgekit.answers import Answers, Tried, at_chance, drop_between, same_label
from edgekit.artifact import Artifact
from edgekit.bench import Bench, Measurement
from edgekit.data.table import Table
from edgekit.errors import UsageError
from edgekit.gate import judge, settled
from edgekit.progress import Progress
from edgekit.report.html import render_html
from edgekit.report.markdown import render_markdown
from edgekit.report.schema import BaselineEntry, Deployable, Report, Speed, StepEntry, dump
from edgekit.rules import Rule
from edgekit.runtimes import runtime_of
from edgekit.runtimes.base import Workload, task_of
from edgekit.sample_size import sample_notes
from edgekit.targets import Target, find_target
from edgekit.tasks.encoders import score_of
from edgekit.trials import trial_of

__all__ = ["Subject", "make_report", "write_report"]


@dataclass(frozen=True)
class Subject:
    """A file to measure: the artifact, where the report says it lies, and the ids of the steps behind it."""

    artifact: Artifact
    path: str
    lineage: tuple[str, ...] = ()


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
    where = replace(where, runtimes=where.executes(task_of(artifacts[baseline]).kind))
    for note in sample_notes(rules, score_of(task_of(artifacts[baseline]).kind), len(table)):
        progress.say(f"note: {note}")
    machine = where.transport.probe(_libraries(artifacts, where))
    workload = workload.model_copy(update={"threads": workload.threads or where.threads})
    trial = trial_of(artifacts[baseline], table, workload)
    tried = Tried(artifacts, baseline, workload, where, progress)
    answers = trial.answers(tried, cache)
    progress.say(f"measuring {len(subjects)} files, interleaved; keep the machine otherwise idle")
    bench, speeds = trial.speeds(tried, partial(settled, rules))
    notes = (*notes, *trial.notes)
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
        deployables=tuple(
            _deployable(subjects[n], bench.measurements[n], answers[n], base, speeds.get(n)) for n in names
        ),
        baseline=BaselineEntry.model_validate(
            _common(subjects[baseline], bench.measurements[baseline], base, speeds.get(baseline))
        ),
        baseline_check=at_chance(base),
        control=bench.control,
        conditions=bench.conditions.model_copy(update={"target": where.name}),
        task=task_of(artifacts[baseline]),
        notes=notes,
        interrupted=bench.interrupted,
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


def _deployable(
    subject: Subject, measured: Measurement, mine: Answers, base: Answers, speed: Speed | None
) -> Deployable:
    common = _common(subject, measured, mine, speed)
    drop = drop_between(base, mine)
    extra = {
        "metrics": {**mine.metrics, "agreement": same_label(base, mine)},
        "accuracy_drop": drop.model_dump() if drop else None,
        "speedup": measured.speedup.model_dump() if measured.speedup else None,
        "rounds": [ratio.model_dump() for ratio in measured.rounds],
        "lineage": subject.lineage,
    }
    return Deployable.model_validate({**common, **extra})


def _common(subject: Subject, measured: Measurement, answers: Answers, speed: Speed | None) -> dict[str, JsonValue]:
    shared: dict[str, JsonValue] = measured.model_dump(exclude={"speedup", "rounds"})
    packed = answers.packed.model_dump() if answers.packed else None
    known = {"path": subject.path, "artifact": subject.artifact.content, "correctness": packed}
    known["speed"] = speed.model_dump() if speed else None
    return {**shared, **known, "metrics": {**answers.metrics}}
