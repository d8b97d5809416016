"""What each step did: one panel a quantity, one row a step, the change from the step before it drawn as a bar."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Literal

from edgekit.report import words
from edgekit.report.svg import Box, Canvas, fit, text_width

__all__ = ["Panel", "Row", "change_text", "draw", "value_text"]

_WIDTH = 336.0
_ROW = 44.0
_FONT = 12.5
_BAR = 9.0
_OFF_AXIS = 0.1
Quantity = Literal["accuracy", "size", "latency"]


@dataclass(frozen=True)
class Row:
    """A step: its value and that of what it is compared with, the nearest measured step before it (`before_name`)."""

    name: str
    value: float | None
    before: float | None = None
    before_name: str = ""
    gap: bool = False  # True: compared with something else than the row above, which must be named
    heading: str = ""
    note: str = ""


@dataclass(frozen=True)
class Panel:
    """One quantity along the steps. `absent` says why a row has no value ("not exported")."""

    quantity: Quantity
    title: str
    absent: str
    rows: tuple[Row, ...]


def draw(panel: Panel) -> str:
    """The panel as an SVG element; the empty string where no row has a value."""
    if all(row.value is None for row in panel.rows):
        return ""
    headings = sum(bool(row.heading) for row in panel.rows)
    foot = 22.0
    canvas = Canvas(_WIDTH, len(panel.rows) * _ROW + headings * 20 + foot, _spoken(panel))
    low, high = _domain(panel)
    y = 0.0
    for row in panel.rows:
        if row.heading:
            canvas.text(0, y + 14, row.heading, "tick")
            canvas.line(text_width(row.heading, 11) + 8, y + 10, _WIDTH, y + 10, "grid")
            y += 20
        _row(canvas, panel, row, y, low, high)
        y += _ROW
    if panel.quantity == "accuracy":
        below = any(row.value is not None and row.value < low for row in panel.rows)
        canvas.text(0, y + 14, f"axis from {low:.0%}{', ◂ below it' if below else ''}", "tick")
        canvas.text(_WIDTH, y + 14, f"to {high:.0%}", "tick", "end")
    else:
        canvas.text(0, y + 14, "axis from 0", "tick")
        canvas.text(_WIDTH, y + 14, f"to {_value(panel.quantity, high)}", "tick", "end")
    return str(canvas)


def _spoken(panel: Panel) -> str:
    parts = (f"{row.name} {value_text(panel, row)}" for row in panel.rows)
    return f"{panel.title} after each step: {'; '.join(parts)}"


def _value(quantity: Quantity, value: float | None) -> str:
    return {"accuracy": words.percent, "size": words.size, "latency": words.milliseconds}[quantity](value)


def value_text(panel: Panel, row: Row) -> str:
    """The row's value in its unit, or why there is none."""
    return panel.absent if row.value is None else _value(panel.quantity, row.value)


def change_text(quantity: Quantity, row: Row) -> str:
    """The change from what the row is compared with, named where it is not the row above; empty where there is none."""
    if row.before is None or row.value is None:
        return ""
    text = words.change(row.before, row.value)
    if quantity == "accuracy":
        text = words.signed_points(row.value - row.before)
    return f"{text} vs {row.before_name}" if row.gap else text


def _domain(panel: Panel) -> tuple[float, float]:
    """Zero to the largest for sizes and times; whole per cents round the values for accuracy.

    A model before its training is at chance: values ten points below the median are left off the axis, or nothing
    else could be told apart. `_bar` marks them.
    """
    values = [v for row in panel.rows for v in (row.value, row.before) if v is not None]
    if panel.quantity != "accuracy":
        return 0.0, max(max(values), 1e-9)
    values = [v for v in values if v >= median(values) - _OFF_AXIS]
    low, high = math.floor(min(values) * 100 - 0.5), math.ceil(max(values) * 100 + 0.5)
    missing = max(0, 4 - (high - low))
    return max(0, low - missing) / 100, min(100, high) / 100


def _row(canvas: Canvas, panel: Panel, row: Row, y: float, low: float, high: float) -> None:
    quantity, base, bar = panel.quantity, y + 16, y + 24

    def at(value: float) -> float:
        return (value - low) / (high - low) * _WIDTH if high > low else 0.0

    value, delta = value_text(panel, row), change_text(quantity, row)
    used = text_width(value, _FONT)
    canvas.text(_WIDTH, base, value, "t num" if row.value is not None else "tick", "end")
    if delta:
        # A long comparison would push the name out; the tooltip has it in full.
        shown = fit(delta, _WIDTH * 0.4, 11)
        canvas.text(_WIDTH - used - 8, base, shown, f"tick {_tone(quantity, row)}", "end")
        used += text_width(shown, 11) + 8
    name = fit(row.name, _WIDTH - used - 10, _FONT)
    canvas.text(0, base, name, "t name")
    if row.note and text_width(name, _FONT) + text_width(row.note, 11) + used + 24 < _WIDTH:
        canvas.text(text_width(name, _FONT) + 7, base, row.note, "tick")
    with canvas.group(words.join(f"{row.name}: {value}", f"({delta})" if delta else "", row.note)):
        canvas.rect(Box(0, bar, _WIDTH, _BAR), "track" if row.value is not None else "track absent", 2)
        if row.value is not None:
            _bar(canvas, quantity, bar, at(row.value), at(row.value if row.before is None else row.before))


def _bar(canvas: Canvas, quantity: Quantity, y: float, to: float, was: float) -> None:
    if quantity == "accuracy":
        shown, since = max(to, 0.0), max(was, 0.0)
        tone = "worse" if to < was else "better"
        canvas.rect(Box(min(shown, since), y, abs(shown - since), _BAR), f"delta {tone}")
        if to < 0:  # off the axis: an arrow head at its left end
            canvas.path(f"M0 {y + _BAR / 2:.1f}l9 -7v14z", "mark")
            return
        canvas.rect(Box(min(max(to - 1.5, 0), _WIDTH - 3), y - 3, 3, _BAR + 6), "mark", 1)
        return
    canvas.rect(Box(0, y, max(min(to, was), 1.5), _BAR), "solid", 2)
    if to != was:
        canvas.rect(Box(min(to, was), y, abs(to - was), _BAR), f"delta {'worse' if to > was else 'saved'}")


def _tone(quantity: Quantity, row: Row) -> str:
    """Colour for a change that counts: a tenth of a point, one per cent."""
    if row.before is None or row.value is None:
        return ""
    gain = row.value - row.before if quantity == "accuracy" else (row.before - row.value) / max(row.before, 1e-9)
    return "" if abs(gain) < (0.0005 if quantity == "accuracy" else 0.01) else "good" if gain > 0 else "bad"
