"""The trade-off plot: latency (log) against accuracy, bubble area by file size, the Pareto front marked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from edgekit.report import words
from edgekit.report.svg import Box, Canvas, fit, linear_ticks, log_ticks, text_width

__all__ = ["Point", "draw", "pareto"]

Kind = Literal["onnx", "gguf", "baseline", "other"]
_LARGEST = 26.0  # radius of the largest bubble
_SMALLEST = 4.0
_FONT = 12.0


@dataclass(frozen=True)
class Point:
    """A measured file: milliseconds and a fraction, with their intervals where known, and bytes."""

    name: str
    kind: Kind
    latency: float
    accuracy: float
    size: int
    latency_range: tuple[float, float] | None = None
    accuracy_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class _Placed:
    point: Point
    x: float
    y: float
    radius: float

    @property
    def box(self) -> Box:
        return Box(self.x - self.radius, self.y - self.radius, 2 * self.radius, 2 * self.radius)


@dataclass(frozen=True)
class _Scale:
    """Where a value lands: linear between the ends, in the logarithm where `log`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, v = (math.log(n) if self.log else n for n in (self.low, self.high, value))
        return self.start + (v - low) / (high - low) * (self.end - self.start)


def pareto(points: Sequence[Point]) -> list[Point]:
    """The points no other point beats or equals on both axes while beating it on one, fastest first."""

    def beaten(p: Point) -> bool:
        return any(
            q.latency <= p.latency and q.accuracy >= p.accuracy and (q.latency, q.accuracy) != (p.latency, p.accuracy)
            for q in points
        )

    return sorted((p for p in points if not beaten(p)), key=lambda p: (p.latency, -p.accuracy))


def draw(points: Sequence[Point], width: float, height: float, best: str = "") -> str:
    """The plot as an SVG element; empty where there is nothing to plot. `best` names the point to emphasise."""
    points = [p for p in points if p.latency > 0 and math.isfinite(p.latency) and math.isfinite(p.accuracy)]
    if not points:
        return ""
    frame = Box(52, 14, width - 66, height - 62)
    x, y = _scales(points, frame)
    canvas = Canvas(width, height, _spoken(points))
    _axes(canvas, frame, x, y)
    most = max(p.size for p in points)
    placed = [_Placed(p, x(p.latency), y(p.accuracy), _radius(p.size, most)) for p in points]
    placed.sort(key=lambda p: -p.radius)  # large ones first, so that small ones stay visible on top
    front = pareto(points)
    stairs = [p for p in placed if p.point in front]
    _front(canvas, stairs)
    for mark in placed:
        _whiskers(canvas, mark, x, y, frame)
    for mark in placed:
        _bubble(canvas, mark, mark.point in front)
    strips = [box for mark in placed for box in _whisker_boxes(mark, x, y)] + _front_boxes(stairs)
    _labels(canvas, placed, frame, best, strips)
    return str(canvas)


def _spoken(points: Sequence[Point]) -> str:
    each = (
        f"{p.name} {words.milliseconds(p.latency)}, {words.percent(p.accuracy)}, {words.size(p.size)}" for p in points
    )
    return f"Latency against accuracy: {'; '.join(each)}"


def _radius(size: int, most: int) -> float:
    return max(_SMALLEST, _LARGEST * math.sqrt(size / most)) if most > 0 else _SMALLEST


def _scales(points: Sequence[Point], frame: Box) -> tuple[_Scale, _Scale]:
    lows = [min(p.latency, *(p.latency_range or ())) if p.latency_range else p.latency for p in points]
    highs = [max(p.latency, *(p.latency_range or ())) if p.latency_range else p.latency for p in points]
    left, right = min(v for v in lows if v > 0), max(highs)
    spread = max(math.log(right / left), math.log(3))  # never zoom in further than a factor of three
    middle = math.sqrt(left * right)
    # Room for the largest bubble and half a label on both sides.
    room = (2 * _LARGEST + 10) / frame.width
    half = math.exp(spread / 2 / (1 - 2 * room))
    x = _Scale(middle / half, middle * half, frame.x, frame.x + frame.width, log=True)
    values = [v for p in points for v in (p.accuracy, *(p.accuracy_range or ()))]
    low, high = min(values), max(values)
    rise = max(high - low, 0.02)
    margin = (rise - (high - low)) / 2 + rise * (_LARGEST + 16) / frame.height * 1.4
    return x, _Scale(low - margin, high + margin, frame.y + frame.height, frame.y)


def _axes(canvas: Canvas, frame: Box, x: _Scale, y: _Scale) -> None:
    bottom, right = frame.y + frame.height, frame.x + frame.width
    ticks = [v for v in linear_ticks(y.low, y.high) if 0 <= v <= 1]
    fine = any(abs(v * 100 - round(v * 100)) > 1e-6 for v in ticks)
    for v in ticks:
        canvas.line(frame.x, y(v), right, y(v), "grid")
        canvas.text(frame.x - 8, y(v) + 4, f"{v * 100:.1f}%" if fine else f"{v * 100:.0f}%", "tick", "end")
    for v in log_ticks(x.low, x.high):
        canvas.line(x(v), frame.y, x(v), bottom, "grid")
        canvas.text(x(v), bottom + 18, f"{v:g}", "tick", "middle")
    canvas.line(frame.x, bottom, right, bottom, "axis")
    middle = frame.x + frame.width / 2
    canvas.text(middle, bottom + 40, "latency p50, ms (log scale) – faster to the left", "tick", "middle")


def _front(canvas: Canvas, front: Sequence[_Placed]) -> None:
    """The staircase through the front: above and left of it lies nothing."""
    if len(front) < 2:
        return
    steps = sorted(front, key=lambda p: p.x)
    canvas.path(f"M{steps[0].x:.1f} {steps[0].y:.1f}" + "".join(f"H{p.x:.1f}V{p.y:.1f}" for p in steps[1:]), "front")


def _front_boxes(front: Sequence[_Placed]) -> list[Box]:
    """The strips that the front covers, so that labels keep off."""
    steps = sorted(front, key=lambda p: p.x)
    pairs = list(pairwise(steps))
    flat = [Box(a.x, a.y - 1, b.x - a.x, 2) for a, b in pairs]
    return flat + [Box(b.x - 1, b.y, 2, a.y - b.y) for a, b in pairs]


def _whiskers(canvas: Canvas, mark: _Placed, x: _Scale, y: _Scale, frame: Box) -> None:
    point = mark.point
    if point.accuracy_range:
        top, bottom = (min(max(y(v), frame.y), frame.y + frame.height) for v in reversed(point.accuracy_range))
        canvas.path(f"M{mark.x:.1f} {top:.1f}V{bottom:.1f}M{mark.x - 4:.1f} {top:.1f}h8", "whisker")
        canvas.path(f"M{mark.x - 4:.1f} {bottom:.1f}h8", "whisker")
    if point.latency_range and min(point.latency_range) > 0:
        left, right = (x(v) for v in point.latency_range)
        canvas.path(f"M{left:.1f} {mark.y:.1f}H{right:.1f}M{left:.1f} {mark.y - 4:.1f}v8", "whisker")
        canvas.path(f"M{right:.1f} {mark.y - 4:.1f}v8", "whisker")


def _whisker_boxes(mark: _Placed, x: _Scale, y: _Scale) -> list[Box]:
    """The strips that whiskers cover, so that labels keep off."""
    boxes, point = [], mark.point
    if point.accuracy_range:
        top, bottom = y(max(point.accuracy_range)), y(min(point.accuracy_range))
        boxes.append(Box(mark.x - 4, top, 8, bottom - top))
    if point.latency_range and min(point.latency_range) > 0:
        left, right = x(min(point.latency_range)), x(max(point.latency_range))
        boxes.append(Box(left, mark.y - 4, right - left, 8))
    return boxes


def _bubble(canvas: Canvas, mark: _Placed, on_front: bool) -> None:
    point = mark.point
    tip = (
        f"{point.name}: {words.milliseconds(point.latency)}, {words.percent(point.accuracy)}, {words.size(point.size)}"
    )
    with canvas.group(tip + (", on the Pareto front" if on_front else "")):
        canvas.circle(mark.x, mark.y, mark.radius, f"bubble {point.kind}{'' if on_front else ' beaten'}")
        canvas.circle(mark.x, mark.y, 2, f"dot {point.kind}")


def _labels(canvas: Canvas, placed: Sequence[_Placed], frame: Box, best: str, strips: Sequence[Box]) -> None:
    """Name and figures beside each bubble, smallest bubble first: it has the fewest places to go."""
    taken = [*(mark.box for mark in placed), *strips]
    for mark in sorted(placed, key=lambda p: (p.point.name != best, p.radius)):
        point = mark.point
        name = fit(point.name, min(frame.width * 0.55, 230), _FONT)
        note = f"{words.size(point.size)} · {words.milliseconds(point.latency)}"
        named_only = frame.width < 400  # a phone: the figures stand in the table and the tooltip
        wide = max(text_width(name, _FONT) * 1.06, 0 if named_only else text_width(note, 11))
        box = _place(mark, wide, 15 if named_only else 29, taken, frame)
        taken.append(box)
        _leader(canvas, mark, box)
        canvas.text(box.x, box.y + 12, name, f"t halo {'strong' if point.name == best else 'name'}")
        if not named_only:
            canvas.text(box.x, box.y + 26, note, "tick halo")


def _place(mark: _Placed, width: float, height: float, taken: Sequence[Box], frame: Box) -> Box:
    """The place round the bubble that covers least, nearest first: 16 directions in widening rings."""
    best, least = mark.box, math.inf
    for ring in range(12):
        for turn in range(16):
            # Starts at the right (the usual place) and alternates down and up from there.
            angle = (turn + 1) // 2 * (1 if turn % 2 else -1) * math.pi / 8
            away = mark.radius + 6 + ring * 12
            cx, cy = mark.x + math.cos(angle) * away, mark.y + math.sin(angle) * away
            left = cx - width / 2 + math.cos(angle) * width / 2
            box = Box(left, cy - height / 2 + math.sin(angle) * height / 2, width, height)
            covered = sum(box.grown(2).overlap(other) for other in taken)
            cost = 10 * covered + 10 * box.outside(frame) + ring * 60 + turn * 2
            if cost < least:
                best, least = box, cost
    return best


def _leader(canvas: Canvas, mark: _Placed, box: Box) -> None:
    """A thin line from a bubble to its label where the two are apart."""
    x = min(max(mark.x, box.x), box.x + box.width)
    y = min(max(mark.y, box.y), box.y + box.height)
    apart = math.hypot(x - mark.x, y - mark.y)
    if apart > mark.radius + 14:
        ux, uy = (x - mark.x) / apart, (y - mark.y) / apart
        canvas.line(mark.x + ux * (mark.radius + 2), mark.y + uy * (mark.radius + 2), x - ux * 3, y - uy * 3, "leader")
