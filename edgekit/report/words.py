"""One rendering of each quantity, for HTML, Markdown and the terminal: size, time, rate, points, ratio, interval.

Every function takes the raw value in its base unit (bytes, milliseconds, seconds, fractions) and answers text. None and
values that are not finite are rendered as `MISSING`: a figure that was not measured is never invented.
Sizes are decimal (1 MB = 1,000,000 bytes), negative numbers carry a true minus sign.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = [
    "MISSING",
    "TIMES",
    "change",
    "clip",
    "count",
    "duration",
    "interval",
    "join",
    "milliseconds",
    "number",
    "percent",
    "plural",
    "points",
    "points_interval",
    "rate",
    "ratio",
    "ratio_interval",
    "ratio_number",
    "short",
    "signed_points",
    "size",
]

MISSING: Final = "–"
TIMES: Final = "×"
_MINUS: Final = "\u2212"
_SHORT: Final = 12  # digest characters on screen


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _minus(text: str) -> str:
    """A true minus sign, and none before a zero: "-0.0" is "0.0"."""
    if text.startswith("-"):
        return _MINUS + text[1:] if text.strip("-0., s") else text[1:]
    return text


def number(value: float | None, digits: int = 3) -> str:
    """`value` to about `digits` significant figures, thousands separated: 0.0421, 7.43, 91.5, 1,234."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    # Rounding first, so that 9.999 is laid out as the 10.0 it becomes.
    rounded = float(f"{value:.{digits - 1}e}")
    if math.isinf(rounded):
        rounded = value
    places = digits - 1 - math.floor(math.log10(abs(rounded)))
    return _minus(f"{rounded if places > 0 else value:,.{max(0, places)}f}")


def count(value: int | float | None) -> str:
    """A whole number with thousands separated: 1,234."""
    return MISSING if value is None or not math.isfinite(value) else _minus(f"{value:,.0f}")


def plural(value: int, noun: str, many: str = "") -> str:
    """A count and its noun: "1 step", "3 steps"."""
    return f"{count(value)} {noun if value == 1 else many or noun + 's'}"


def _scaled(value: float, units: tuple[tuple[float, str], ...], digits: int) -> str:
    """`value` in the largest unit it fills once rounded: 999.96 KB is 1.00 MB."""
    rounded = float(f"{value:.{digits - 1}e}")
    for scale, unit in units:
        if abs(rounded) >= scale:
            return f"{number(value / scale, digits)} {unit}"
    scale, unit = units[-1]
    return f"{number(value / scale, digits)} {unit}"


def size(value: float | None, digits: int = 3) -> str:
    """Bytes in decimal units: 980 B, 612 KB, 7.43 MB."""
    if value is None or not math.isfinite(value):
        return MISSING
    if abs(value) < 999.5:
        return f"{count(value)} B"
    return _scaled(value, ((1e9, "GB"), (1e6, "MB"), (1e3, "KB")), digits)


def milliseconds(value: float | None, digits: int = 3) -> str:
    """Milliseconds in the unit that reads best: 85.0 µs, 2.31 ms, 1.24 s."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0 ms"
    if abs(value) < 0.0995:
        return f"{number(value * 1e3, digits)} µs"
    return _scaled(value, ((1e3, "s"), (1.0, "ms")), digits)


def duration(seconds: float | None) -> str:
    """How long work took: 0.4 s, 38 s, 7 min 12 s, 1 h 05 min."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 9.95:
        return _minus(f"{seconds:.1f} s")
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def rate(value: float | None, digits: int = 3) -> str:
    """Items a second: 431/s."""
    return f"{number(value, digits)}/s" if _known(value) else MISSING


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction as a percentage with one decimal: 92.6%."""
    text = points(fraction, digits)
    return text if text == MISSING else f"{text}%"


def points(fraction: float | None, digits: int = 1) -> str:
    """A difference of two fractions in percentage points, without the word: 0.4, −0.2."""
    return MISSING if fraction is None or not math.isfinite(fraction * 100) else _minus(f"{fraction * 100:.{digits}f}")


def signed_points(fraction: float | None) -> str:
    """`points` with a plus sign on gains: +0.4, −0.2, 0.0."""
    text = points(fraction)
    return text if text in (MISSING, "0.0") or text.startswith(_MINUS) else f"+{text}"


def change(before: float | None, after: float | None) -> str:
    """The relative change of a positive quantity: −68%, +3%, ±0%; from a tenth on as a factor, ÷12.1."""
    if before is None or after is None or not _known(before) or not _known(after) or before <= 0 or after <= 0:
        return MISSING
    if before / after >= 9.95:
        return f"÷{number(before / after)}"
    if after / before >= 9.95:
        return f"{TIMES}{number(after / before)}"
    share = (after - before) / before * 100
    text = _minus(f"{share:.1f}" if abs(share) < 0.95 else f"{share:.0f}")
    if text in ("0", "0.0"):
        return "±0%"
    return f"{text}%" if text.startswith(_MINUS) else f"+{text}%"


def ratio_number(value: float | None) -> str:
    """A ratio without its sign, finer close to one, where the difference matters: 12.1, 6.3, 1.04, 0.92."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value >= 99.5:
        return count(value)
    return _minus(f"{value:.1f}" if value >= 1.995 else f"{value:.2f}")


def ratio(value: float | None) -> str:
    """A ratio: 6.3×, 1.04×."""
    return f"{ratio_number(value)}{TIMES}" if _known(value) else MISSING


def interval(low: str, high: str) -> str:
    """Two rendered bounds: [5.9, 6.8]; nothing where either is missing."""
    return "" if MISSING in (low, high) else f"[{low}, {high}]"


def ratio_interval(low: float | None, high: float | None) -> str:
    """The bounds of a ratio, both as fine as the finer one: [5.9, 6.8], [0.97, 2.08]."""
    if low is None or high is None or not _known(low) or not _known(high):
        return ""
    if min(low, high) < 1.995 <= max(low, high) < 99.5:
        return interval(f"{low:.2f}", f"{high:.2f}")
    return interval(ratio_number(low), ratio_number(high))


def points_interval(low: float | None, high: float | None) -> str:
    """The bounds of a difference, in points: [−0.2, 1.1]."""
    return interval(points(low), points(high))


def join(*parts: str) -> str:
    """The parts that are not empty, separated by spaces."""
    return " ".join(part for part in parts if part)


def short(key: str) -> str:
    """The part of a digest that is shown: 12 characters."""
    return key[:_SHORT]


def clip(text: str, width: int) -> str:
    """At most `width` characters; a longer text loses its middle, since both ends of a name tell it apart."""
    if len(text) <= width:
        return text
    head = width // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}" if width > 1 else "…"
