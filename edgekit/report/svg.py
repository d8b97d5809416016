"""Drawing in SVG: a thin canvas over ElementTree (which escapes), text measuring, axis ticks. Colours are classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from xml.etree import ElementTree as Tree

__all__ = ["Box", "Canvas", "fit", "linear_ticks", "log_ticks", "text_width"]

_NARROW = frozenset("iljtfr.,:;'|!()[]I ·-")
_WIDE = frozenset("mwMW@%—…")


@dataclass(frozen=True)
class Box:
    """A rectangle in SVG user units; y grows downwards."""

    x: float
    y: float
    width: float
    height: float

    def overlap(self, other: Box) -> float:
        """The area both cover."""
        across = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        down = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        return max(0.0, across) * max(0.0, down)

    def grown(self, by: float) -> Box:
        return Box(self.x - by, self.y - by, self.width + 2 * by, self.height + 2 * by)

    def outside(self, frame: Box) -> float:
        """The area that lies beyond `frame`."""
        return self.width * self.height - self.overlap(frame)


def text_width(text: str, size: float) -> float:
    """About how wide `text` is in a sans-serif of `size`; rather too wide, since the reader's font is not known."""
    ems = 0.0
    for letter in text:
        if ord(letter) > 0x2E7F:
            ems += 1.05  # East Asian scripts and emoji fill the square
        elif letter in _NARROW:
            ems += 0.36
        elif letter in _WIDE:
            ems += 0.92
        else:
            ems += 0.68 if letter.isupper() else 0.58
    return ems * size


def fit(text: str, width: float, size: float) -> str:
    """`text`, its middle replaced by an ellipsis as far as needed to fit in `width`."""
    if text_width(text, size) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        head = (kept + 1) // 2
        shorter = f"{text[:head]}…{text[len(text) - (kept - head) :]}"
        if text_width(shorter, size) <= width:
            return shorter
    return "…"


class Canvas:
    """An SVG under construction. Coordinates are user units, which the page shows as CSS pixels at most."""

    def __init__(self, width: float, height: float, title: str) -> None:
        frame = {"viewBox": f"0 0 {_n(width)} {_n(height)}", "width": _n(width), "height": _n(height)}
        self.root = Tree.Element("svg", frame | {"role": "img", "aria-label": title, "class": "chart"})
        self._open = [self.root]

    def add(self, tag: str, style: str = "", **attributes: float | str) -> Tree.Element:
        """Append an element; `style` is its class, an underscore in an attribute stands for a hyphen."""
        named = {k.replace("_", "-"): v if isinstance(v, str) else _n(v) for k, v in attributes.items()}
        return Tree.SubElement(self._open[-1], tag, ({"class": style} if style else {}) | named)

    def group(self, tip: str) -> Canvas:
        """A group for `with`; hovering anything in it shows `tip`."""
        self._open.append(self.add("g"))
        self.add("title").text = tip
        return self

    def __enter__(self) -> Canvas:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.pop()

    def rect(self, box: Box, style: str, radius: float = 0) -> None:
        self.add("rect", style, x=box.x, y=box.y, width=max(0.0, box.width), height=box.height, rx=radius)

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        self.add("line", style, x1=x1, y1=y1, x2=x2, y2=y2)

    def circle(self, x: float, y: float, radius: float, style: str) -> None:
        self.add("circle", style, cx=x, cy=y, r=radius)

    def path(self, d: str, style: str) -> None:
        self.add("path", style, d=d)

    def text(self, x: float, y: float, text: str, style: str = "t", anchor: str = "start") -> None:
        self.add("text", style, x=x, y=y, text_anchor=anchor).text = text

    def __str__(self) -> str:
        return Tree.tostring(self.root, encoding="unicode")


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def linear_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values inside [low, high], steps of 1, 2 or 5 times a power of ten; at most `most` of them."""
    span = max(high - low, 1e-12)
    step = 10.0 ** math.floor(math.log10(span / most))
    for factor in (1, 2, 5, 10, 20):
        first, last = math.ceil(low / (step * factor) - 1e-9), math.floor(high / (step * factor) + 1e-9)
        if last - first + 1 <= most:
            return [n * step * factor for n in range(first, last + 1)]
    return []


def log_ticks(low: float, high: float) -> list[float]:
    """Values inside [low, high] (both positive) at 1, 2, 5 times powers of ten; powers where many, even where few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    many = math.log10(high / low) > 2.2
    values = [10.0**d * m for d in decades for m in ((1,) if many else (1, 2, 5))]
    inside = [v for v in values if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)]
    return inside if len(inside) > 1 else linear_ticks(low, high, 4)
