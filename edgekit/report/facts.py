"""The report's plain facts as text: what steps did, what to be warned of, the machine and the conditions."""

from __future__ import annotations

import unicodedata
from typing import TypeVar

from pydantic import JsonValue

from edgekit.artifact import Facts
from edgekit.report import words
from edgekit.report.schema import Conditions, Report, StepEntry
from edgekit.report.sentences import runtime_name

__all__ = ["about", "clean", "measured", "numbers", "skipped", "step_state", "warnings"]

T = TypeVar("T")


def clean(report: Report) -> Report:
    """The report with every control and direction character in its texts replaced by a space: names come from data."""

    def tidy(value: T) -> T | str | dict[str, object] | list[object] | tuple[object, ...]:
        if isinstance(value, str):
            return "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in value)
        if isinstance(value, dict):
            return {str(tidy(k)): tidy(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(tidy(v) for v in value)
        return value

    return Report.model_validate(tidy(report.model_dump(by_alias=True)))


# Ends of their names.
FRACTIONS = ("accuracy", "f1", "agreement", "precision", "recall", "spearman", "pearson", "chrf", "exact_match")


def metric(name: str, value: float | None) -> str:
    """A task metric: fractions as percentages, others as numbers."""
    return words.percent(value) if name.endswith(FRACTIONS) else words.number(value)


def named(name: str) -> str:
    """A figure's name for people."""
    return name.removesuffix("_bytes").removesuffix("_seconds").replace("_f1", "-F1").replace("_", " ")


def measured(step: StepEntry, report: Report) -> list[tuple[str, str]]:
    """What was measured after a step: in torch, or where it made a file, of that file in its runtime."""
    files = (*((report.baseline,) if report.baseline else ()), *report.deployables)
    file = next((f for f in files if f.id == step.id), None)
    found = dict(step.metrics) | (dict(file.metrics) if file else {})
    pairs = [(named(name), metric(name, value)) for name, value in found.items() if value is not None]
    if file is None:
        return pairs
    pairs += [("load", words.milliseconds(file.load_ms))] if file.load_ms is not None else []
    pairs += [("first inference", words.milliseconds(file.first_ms))] if file.first_ms is not None else []
    runtime = file.runtime
    return pairs + ([("in", words.join(runtime_name(runtime.name), runtime.version))] if runtime else [])


def numbers(values: dict[str, float | int | str | bool]) -> list[tuple[str, str]]:
    """A stage's own figures, named and in their units."""

    def text(name: str, value: JsonValue) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        if not isinstance(value, int | float):
            return str(value)
        if name.endswith("bytes"):
            return words.size(value)
        if name.endswith("seconds"):
            return words.duration(value)
        if name.endswith(("accuracy", "f1", "spearman")):
            return words.percent(value)
        return words.count(value) if isinstance(value, int) else words.number(value)

    return [(named(name), text(name, v)) for name, v in values.items()]


def skipped(facts: Facts) -> list[tuple[str, list[str]]]:
    """What was left alone, by reason."""
    found: dict[str, list[str]] = {}
    for entry in facts.skipped:
        found.setdefault(entry.reason, []).append(entry.name)
    return list(found.items())


def warnings(report: Report) -> list[str]:
    """What to know before trusting a figure: the run's, the gate's, each file's and each step's; each told once."""
    files = (*((report.baseline,) if report.baseline else ()), *report.deployables)
    told = [*report.notes, *(report.gate.warnings if report.gate else ())]
    told += [f"{e.id}: {note}" for e in files for note in e.notes]
    told += [f"{s.id}: {warning}" for s in report.steps for warning in s.facts.warnings]
    return list(dict.fromkeys(told))


def step_state(step: StepEntry) -> str:
    """Whether the step ran in this run, and how long it took."""
    if step.cached:
        return f"cached, took {words.duration(step.seconds)}" if step.seconds >= 0.05 else "cached"
    return f"ran in {words.duration(step.seconds)}"


def about(report: Report) -> list[tuple[str, str]]:
    """The machine and the conditions, as pairs of a name and a text."""
    m, c = report.machine, report.conditions
    pairs = [
        ("Processor", words.join(m.cpu, f"({m.arch})")),
        ("Cores", f"{m.cores} physical, {m.logical_cores} logical"),
        ("Memory", words.size(m.memory_bytes)),
        ("Instruction sets", ", ".join(m.isa) or "not known"),
        ("System", f"{m.system}, Python {m.python}"),
        ("Load when described", ", ".join(f"{v:.2f}" for v in m.load) if m.load else words.MISSING),
    ]
    if c:
        pairs += [
            ("Test data", f"{c.data}, {words.plural(c.n, 'example')}"),
            _timed(c),
            ("Batch and threads", f"batch {c.batch}, {words.plural(c.threads, 'thread')}, {c.transport}"),
            ("Length", _lengths(report)),
        ]
    control = report.control
    if control:
        text = words.join(words.ratio(control.value), words.ratio_interval(control.low, control.high))
        pairs.append(("A/A control", f"{text} (baseline against itself; 1 is a quiet machine)"))
    chance = report.baseline_check
    if chance:
        worth = "no better than chance" if chance.at_chance else "better than chance"
        text = f"{words.percent(chance.accuracy)}, always the commonest label {words.percent(chance.majority_share)}"
        pairs.append(("Baseline check", f"{text}: {worth}"))
    versions = ", ".join(f"{n} {v}" for n, v in m.libraries.items() if v != "absent")
    return [*pairs, ("Libraries", versions or words.MISSING)]


def _timed(c: Conditions) -> tuple[str, str]:
    if c.fidelity == "emulated":
        return "Counted", "instructions under emulation, on one thread; times of an emulator mean nothing"
    return "Timed", f"{words.plural(c.items, 'example')} in {words.plural(c.rounds, 'interleaved round')}"


def _lengths(report: Report) -> str:
    c = report.conditions
    if c is None or (c.tokens is None and c.length is None):
        return words.MISSING
    if c.length is not None:
        return f"{c.length} tokens, fixed"
    t = c.tokens
    assert t is not None
    return f"{t.min} to {t.max} tokens, as they come; median {t.p50:g}, 90th percentile {t.p90:g}"
