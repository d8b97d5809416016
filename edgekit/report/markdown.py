"""The report as GitHub-flavoured Markdown, for a CI job's page: the figures and words of the HTML, without charts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgekit.report import view, words
from edgekit.report.facts import about, clean, measured, numbers, skipped, step_state, warnings
from edgekit.report.method import method
from edgekit.report.schema import Report, StepEntry
from edgekit.report.sentences import comparison, verdict, verdict_word
from edgekit.report.tables import Line, deployable_lines, files_caption, gate_lines
from edgekit.report.waterfall import change_text, value_text

__all__ = ["render_markdown", "render_summary"]

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$@!])")
_SYMBOLS = {"PASS": "✅", "FAIL": "❌", "INCONCLUSIVE": "❔", "NO GATE": "⚪"}


def render_markdown(report: Report) -> str:
    """The report as text. Every name and sentence from outside is escaped: no markup, link or mention comes through."""
    report = clean(report)
    word = verdict_word(report.gate)
    parts = [f"# {_SYMBOLS[word]} {word}: {_text(verdict(report))}"]
    if word in ("FAIL", "INCONCLUSIVE"):
        parts.append(_text(comparison(report)))
    parts += ["## Gate", *_gate(report)]
    files = deployable_lines(report)
    parts += ["## Deployables", _text(files_caption(report)), _table(files)] if files else []
    parts += ["## What each step did", *_waterfall(report)] if report.steps else []
    parts += _folded("Each step", "\n".join(_step(step, report) for step in report.steps)) if report.steps else []
    conditions = "\n".join(f"- {_text(name)}: {_text(text)}" for name, text in about(report))
    reading = "\n\n".join(f"**{_text(title)}** {_text(text)}" for title, text in method(report))
    parts += [*_folded("Machine and conditions", conditions), *_folded("How to read this", reading)]
    notes = warnings(report)
    parts += ["## Notes", "\n".join(f"- {_text(note)}" for note in notes)] if notes else []
    return "\n\n".join(parts) + "\n"


def render_summary(report: Report) -> str:
    """The gate alone, for a CI job's page: verdict, rules, and each rule's sentence. Escaped as the report is."""
    report = clean(report)
    word = verdict_word(report.gate)
    parts = [f"## {_SYMBOLS[word]} edgekit gate: {word}", _text(verdict(report)), *_gate(report)]
    if report.gate is not None:
        warned = "\n".join(f"- ⚠ {_text(warning)}" for warning in report.gate.warnings)
        parts += [warned] if warned else []
    return "\n\n".join(parts) + "\n"


def _folded(title: str, body: str) -> list[str]:
    """A part that opens on a click: a job's page begins with what decides."""
    return [f"<details>\n<summary>{title}</summary>", body, "</details>"]


def _text(text: str) -> str:
    """`text` with everything that Markdown or HTML would take for markup disarmed; line breaks become spaces."""
    flat = " ".join(text.split())
    flat = _SPECIAL.sub(r"\\\1", flat.replace("&", "&amp;")).replace("\\<", "&lt;").replace("\\>", "&gt;")
    # A bare address would become a link, "@name" a mention; a number or a dash in front would start a list.
    flat = re.sub(r"(?i)(https?|ftp):(?=//)", r"\1&#58;", flat).replace("www.", "www&#46;").replace("\\@", "&#64;")
    return re.sub(r"^(\d*)([-+=.)])(?=[-=\s]|$)", r"\1\\\2", flat)


def _table(lines: Sequence[Line]) -> str:
    head = lines[0].cells
    rows = [[_text(cell.label) for cell in head], ["---:" if cell.right else ":---" for cell in head]]
    for line in lines:
        strong = "**" if line.style in ("best", "fail") else ""
        texts = [f"{strong}{_text(line.cells[0].text)}{strong}", *(_text(cell.text) for cell in line.cells[1:])]
        notes = [f"<br>{_text(cell.extra)}" if cell.extra else "" for cell in line.cells]
        rows.append([text + note for text, note in zip(texts, notes, strict=True)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _gate(report: Report) -> list[str]:
    if report.gate is None:
        return ["No rules were given, so nothing was judged."]
    lines = gate_lines(report)
    reasons = [f"- ❌ {_text(reason)}" for reason in report.gate.reasons]
    told = "\n".join(f"- {_text(rule.sentence)}" for rule in report.gate.rules if rule.sentence)
    parts = [_table(lines)] if lines else []
    parts += ["\n".join(reasons)] if reasons else []
    return parts + (_folded("How each rule was decided", told) if told else [])


def _waterfall(report: Report) -> list[str]:
    """One table: accuracy, size and latency after each step, each with its change."""
    panels = view.panels(report)
    rows = [["Step", *(panel.title for panel in panels)], [":---", *("---:" for _ in panels)]]
    for index, first in enumerate(panels[0].rows):
        cells = []
        for panel in panels:
            row = panel.rows[index]
            delta = change_text(panel.quantity, row)
            cells.append(_text(words.join(value_text(panel, row), row.note, f"({delta})" if delta else "")))
        rows.append([_text(first.name), *cells])
    return ["\n".join(f"| {' | '.join(row)} |" for row in rows)]


def _step(step: StepEntry, report: Report) -> str:
    came = f" from {_text(', '.join(step.parents))}" if step.parents else ""
    state = f"{_text(step.stage)}, {step_state(step)}, {words.size(step.size_bytes)}"
    digest = words.short(re.sub(r"[^0-9A-Za-z]", "", step.artifact))
    lines = [f"- **{_text(step.id)}**{came} ({state}, `{digest}`): {_text(step.facts.summary)}"]
    figures = measured(step, report) + numbers(step.facts.numbers)
    if figures:
        lines.append("  - " + "; ".join(f"{_text(name)} {_text(value)}" for name, value in figures))
    if step.facts.touched:
        lines.append(f"  - touched {words.plural(len(step.facts.touched), 'part')}")
    for reason, names in skipped(step.facts):
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        lines.append(f"  - skipped {len(names)}: {_text(reason)} ({_text(', '.join(names[:4]))}{more})")
    lines += [f"  - ⚠ {_text(warning)}" for warning in step.facts.warnings]
    return "\n".join(lines)
