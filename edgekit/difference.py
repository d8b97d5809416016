"""Why two reports differ: file by file what changed, what can be said of it, and what lies behind it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from edgekit.artifact import Frozen
from edgekit.figures import metric_value, show
from edgekit.report.schema import BaselineEntry, Latency, Report, StepEntry
from edgekit.statistics import ALPHA

__all__ = ["Difference", "FileDifference", "difference"]

UNTIMED = "its times cannot be compared: measure the two side by side (edgekit bench NEW --baseline OLD_FOLDER)"
FIGURES = ("accuracy", "macro_f1", "memory", "instructions")


class FileDifference(Frozen):
    """One file, in words: what is the same and what is not."""

    id: str
    lines: tuple[str, ...]


class Difference(Frozen):
    """`files`: each in words. `context`: the machine, the conditions, the libraries; `steps`: what made them."""

    files: tuple[FileDifference, ...]
    context: tuple[str, ...]
    steps: tuple[str, ...]


def difference(before: Report, after: Report) -> Difference:
    """What changed from `before` to `after`."""
    old, new = _files(before), _files(after)
    context = (*_machine(before, after), *_conditions(before, after))
    files = []
    for name in dict.fromkeys((*old, *new)):
        if name in old and name in new:
            lines = tuple(_file(old[name], new[name], comparable=not context))
        else:
            lines = (f"only in the {'first' if name in old else 'second'}",)
        files.append(FileDifference(id=name, lines=lines))
    return Difference(files=tuple(files), context=(*context, *_libraries(before, after)), steps=_steps(before, after))


def _files(report: Report) -> dict[str, BaselineEntry]:
    return {entry.id: entry for entry in (report.baseline, *report.deployables) if entry is not None}


def _file(old: BaselineEntry, new: BaselineEntry, *, comparable: bool) -> Iterator[str]:
    if old.artifact and old.artifact == new.artifact:
        yield "the same file"
    elif old.artifact and new.artifact:
        yield f"another file: {old.artifact[:12]} -> {new.artifact[:12]}"
    share = f" ({new.size_bytes / old.size_bytes - 1:+.1%})" if old.size_bytes else ""
    if old.size_bytes != new.size_bytes:
        yield f"size {show('size', old.size_bytes)} -> {show('size', new.size_bytes)}{share}"
    for name in FIGURES:
        first, second = show(name, metric_value(name, old)), show(name, metric_value(name, new))
        if first != second:
            yield f"{name} {first} -> {second}"
    yield from _paired(old, new)
    yield from _latency(old.latency_ms, new.latency_ms, comparable=comparable)
    if old.runtime != new.runtime:
        yield f"runtime {_runtime(old)} -> {_runtime(new)}"


def _paired(old: BaselineEntry, new: BaselineEntry) -> Iterator[str]:
    """What the accuracies of the same examples say."""
    if metric_value("accuracy", old) is None or metric_value("accuracy", new) is None:
        return
    drop = old.correctness.drop_to(new.correctness) if old.correctness and new.correctness else None
    if drop is None:
        yield "accuracy cannot be paired: the reports are not of the same examples, or do not hold the answers"
        return
    value, low, high = ((0.0 - end) * 100 for end in (drop.value, drop.high, drop.low))  # 0.0 - 0.0 has no sign
    real = "beyond chance" if drop.p_value is not None and drop.p_value < ALPHA else "no difference is shown"
    yield f"accuracy, paired: {value:+.2f}pt [{low:+.2f}, {high:+.2f}], McNemar p = {drop.p_value:.2g}: {real}"


def _latency(old: Latency | None, new: Latency | None, *, comparable: bool) -> Iterator[str]:
    if old is None or new is None:
        return
    seen = f"latency p50 {show('latency.p50', old.p50)} -> {show('latency.p50', new.p50)}"
    if not comparable:
        yield f"{seen}: {UNTIMED}"
        return
    seen = f"{seen} ({new.p50 / old.p50:.3f}x)"
    if old.p50_interval is None or new.p50_interval is None:
        yield f"{seen}: measured at two times, without intervals; a few percent may be the machine's"
        return
    apart = old.p50_interval[1] < new.p50_interval[0] or new.p50_interval[1] < old.p50_interval[0]
    told = "the intervals are apart; it may still be the machine at another time" if apart else "the intervals overlap"
    yield f"{seen}: {told}"


def _machine(before: Report, after: Report) -> Iterator[str]:
    for name in ("cpu", "arch", "cores", "logical_cores", "memory_bytes", "isa"):
        yield from _unlike(f"machine {name}", getattr(before.machine, name), getattr(after.machine, name))


def _conditions(before: Report, after: Report) -> Iterator[str]:
    first, second = before.conditions, after.conditions
    if first is None or second is None:
        if first is not second:
            yield "the conditions of one are not known"
        return
    for name in ("data", "n", "items", "batch", "threads", "length", "target", "transport", "fidelity"):
        yield from _unlike(name, getattr(first, name), getattr(second, name))


def _libraries(before: Report, after: Report) -> Iterator[str]:
    yield from _mapped("library", before.machine.libraries, after.machine.libraries)
    yield from _unlike("python", before.machine.python, after.machine.python)
    yield from _unlike("system", before.machine.system, after.machine.system)


def _steps(before: Report, after: Report) -> tuple[str, ...]:
    """Steps that came, went, or made something else; the first of a chain is where to look."""
    old, new = {step.id: step for step in before.steps}, {step.id: step for step in after.steps}
    found = [
        f"step {name}: only in the {'first' if name in old else 'second'}" for name in sorted(old.keys() ^ new.keys())
    ]
    for name, step in new.items():
        if name in old and old[name].artifact != step.artifact:
            found += _step(old[name], step)
    return tuple(found)


def _step(old: StepEntry, new: StepEntry) -> Iterator[str]:
    yield f"step {new.id}: another result, {old.artifact[:12]} -> {new.artifact[:12]}"
    yield from _unlike(f"step {new.id} did", old.facts.summary, new.facts.summary)
    yield from _mapped(f"step {new.id}", old.facts.numbers, new.facts.numbers)


def _mapped(what: str, old: Mapping[str, JsonValue], new: Mapping[str, JsonValue]) -> Iterator[str]:
    for name in dict.fromkeys((*old, *new)):
        yield from _unlike(f"{what} {name}", old.get(name, "none"), new.get(name, "none"))


def _unlike(what: str, old: object, new: object) -> Iterator[str]:
    if old != new:
        yield f"{what}: {old} -> {new}"


def _runtime(entry: BaselineEntry) -> str:
    return f"{entry.runtime.name} {entry.runtime.version}" if entry.runtime else "unknown"
