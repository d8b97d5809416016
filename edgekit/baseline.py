"""Baselines: what a user's repository keeps of a report, so that later builds are held against it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, JsonValue, ValidationError

from edgekit.artifact import Frozen, Task
from edgekit.digest import SHORT
from edgekit.errors import Problem, UsageError
from edgekit.figures import metric_value, show
from edgekit.machine import Machine
from edgekit.report.schema import BaselineEntry, Conditions, Report, load_report
from edgekit.rules import METRICS
from edgekit.statistics import Chance

__all__ = [
    "Baseline",
    "Change",
    "Update",
    "changes",
    "check_same",
    "check_worth",
    "load_baseline",
    "reduce",
    "updated",
    "write_baseline",
]

SCHEMA = 1
AGAIN = "make it anew: edgekit baseline save report.json --out baseline.json"
KEPT = {
    *("id", "format", "size_bytes", "metrics", "latency_ms", "throughput", "peak_rss_bytes", "instructions"),
    *("runtime", "precision", "artifact", "correctness"),
}
MEASURED = ("target", "transport", "fidelity", "data", "n", "batch", "length", "items", "threads")  # of the conditions


class Change(Frozen):
    """One figure of one file, before and after, in words; without a file, of how all were measured."""

    file: str
    figure: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{f'{self.file}: ' if self.file else ''}{self.figure} {self.before} -> {self.after}"


class Update(Frozen):
    """What an update changed, when (ISO 8601, UTC), and why that is allowed."""

    date: str
    reason: str
    changes: tuple[Change, ...]


class Baseline(Frozen):
    """baseline.json, schema 1: the files that ship, machine and conditions, and how they came to be what they are."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    kind: Literal["baseline"] = "baseline"
    schema_version: Literal[1] = Field(default=1, alias="schema")
    recipe: str
    machine: Machine
    conditions: Conditions | None = None
    task: Task | None = None
    check: Chance | None = None
    files: tuple[BaselineEntry, ...]
    history: tuple[Update, ...] = ()

    def file(self, name: str) -> BaselineEntry | None:
        return next((entry for entry in self.files if entry.id == name), None)


def reduce(report: Report) -> Baseline:
    """What a baseline keeps of a report. Raises UsageError for a report without deployables."""
    if not report.deployables:
        raise UsageError("the report has no deployables: there is nothing to hold later builds against")
    return Baseline(
        recipe=report.recipe,
        machine=report.machine,
        conditions=report.conditions,
        task=report.task,
        check=report.baseline_check,
        files=tuple(_kept(entry) for entry in report.deployables),
    )


def load_baseline(path: Path) -> Baseline:
    """Read a baseline, or a report.json as one. Raises UsageError where it is missing, empty, or of another schema."""
    raw = _read(path)
    if not (isinstance(raw, dict) and raw.get("kind") == "baseline"):
        return reduce(load_report(path))
    if raw.get("schema") != SCHEMA:
        raise UsageError(f"{path}: a baseline of schema {raw.get('schema')}; this edgekit reads {SCHEMA}", hint=AGAIN)
    try:
        found = Baseline.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        problems = tuple(Problem(".".join(str(at) for at in e["loc"]), e["msg"]) for e in error.errors())
        raise UsageError(f"{path}: not a baseline of schema {SCHEMA}", problems=problems, hint=AGAIN) from None
    if not found.files:
        raise UsageError(f"{path}: the baseline holds no files", hint=AGAIN)
    return found


def check_same(report: Report, baseline: Baseline) -> None:
    """Raise UsageError where the two are not of the same model and task: no rule could say anything then."""
    ours, theirs = [d.id for d in report.deployables], [f.id for f in baseline.files]
    if not set(ours) & set(theirs):
        what = (
            f"a baseline of another model: it holds {', '.join(theirs)}; the report has {', '.join(ours) or 'no files'}"
        )
        raise UsageError(what, hint="files are told apart by name: give the baseline of this recipe")
    first, second = report.task, baseline.task
    if first is None or second is None:
        return
    if (first.kind, first.pair) != (second.kind, second.pair):
        what = f"a baseline of another task: {_task(second)}; the report is of {_task(first)}"
        raise UsageError(what, hint="give the baseline of this task")
    if first.labels != second.labels:
        what = f"a baseline of another task: its {len(second.labels)} labels are not the report's {len(first.labels)}"
        raise UsageError(what, hint="labels, and their order, have to be the same")


def changes(before: Baseline, after: Baseline) -> tuple[Change, ...]:
    """What was measured otherwise (machine, target, data, workload), then every figure that is not the same."""
    found = list(_measured(before, after))
    for name in dict.fromkeys(f.id for f in (*before.files, *after.files)):
        old, new = before.file(name), after.file(name)
        if old is None or new is None:
            words = ("not there", "added") if old is None else ("there", "removed")
            found.append(Change(file=name, figure="file", before=words[0], after=words[1]))
        else:
            found += _changed(old, new)
    return tuple(found)


def updated(before: Baseline, report: Report, reason: str, date: str) -> Baseline:
    """The baseline with the report's figures, and in its history what changed and why.

    Raises UsageError for an empty reason, a report of another model or task, or one whose own baseline is at chance.
    """
    if not reason.strip():
        raise UsageError("an update needs a reason", hint="--reason 'why these figures may change'")
    check_same(report, before)
    check_worth(report)
    after = reduce(report)
    entry = Update(date=date, reason=reason.strip(), changes=changes(before, after))
    return after.model_copy(update={"history": (*before.history, entry)})


def check_worth(report: Report) -> None:
    """Raise UsageError where the report's accuracy is at chance: whatever keeps up with it proves nothing."""
    check = report.baseline_check
    if check is not None and check.at_chance:
        what = f"the report's baseline is at chance level: accuracy {check.accuracy:.1%}"
        raise UsageError(what, hint="train the model first, or give data that have its labels")


def write_baseline(baseline: Baseline, path: Path) -> None:
    """Write the file in one rename. Raises UsageError where that fails."""
    fresh = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(baseline.model_dump_json(by_alias=True, indent=2) + "\n", encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def _kept(entry: BaselineEntry) -> BaselineEntry:
    """Without where it lay on the machine that measured it."""
    found = {name: getattr(entry, name) for name in KEPT}
    return BaselineEntry(path=Path(entry.path).name, **found)


def _read(path: Path) -> JsonValue:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise UsageError(f"{path}: the baseline cannot be read ({reason})", hint=AGAIN) from None
    if not text.strip():
        raise UsageError(f"{path}: the baseline is empty", hint=AGAIN)
    try:
        found: JsonValue = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{path}: the baseline is not JSON ({error})", hint=AGAIN) from None
    return found


def _measured(old: Baseline, new: Baseline) -> Iterator[Change]:
    """Of what makes two figures comparable; rounds are no part of it."""
    if old.machine.cpu != new.machine.cpu:
        yield Change(file="", figure="machine", before=old.machine.cpu, after=new.machine.cpu)
    for name in MEASURED:
        before, after = (
            "not known" if it is None else str(getattr(it, name)) for it in (old.conditions, new.conditions)
        )
        if before != after:
            yield Change(file="", figure=name, before=before, after=after)


def _changed(old: BaselineEntry, new: BaselineEntry) -> Iterator[Change]:
    for name, metric in METRICS.items():
        if metric.against_baseline:
            before, after = (show(name, metric_value(name, entry)) for entry in (old, new))
            if before != after:
                yield Change(file=old.id, figure=name, before=before, after=after)
    for figure, before, after in (("test data", _data(old), _data(new)), ("artifact", old.artifact, new.artifact)):
        if before != after:
            yield Change(file=old.id, figure=figure, before=before[:SHORT] or "-", after=after[:SHORT] or "-")


def _data(entry: BaselineEntry) -> str:
    """Digest of the examples it answered; empty where that is not known."""
    return entry.correctness.data if entry.correctness is not None else ""


def _task(task: Task) -> str:
    labels = f", {len(task.labels)} labels" if task.labels else ""
    return f"{task.kind}{' of pairs' if task.pair else ''}{labels}"
