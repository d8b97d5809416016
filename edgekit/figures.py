"""A file's figures by the names that rules use, and each in words as a rule would write it."""

from __future__ import annotations

import math

from edgekit.report.schema import BaselineEntry, Deployable
from edgekit.rules import BYTES, COUNT, DROPS, FRACTION, METRICS, RATE, SCORE_DROP, TIME, main_metric

__all__ = ["metric_value", "show"]


def metric_value(metric: str, entry: BaselineEntry, baseline: BaselineEntry | None = None) -> float | None:
    """A metric of a file in its base unit; None where it was not measured. `baseline`: what a size ratio is to."""
    family, _, percentile = metric.partition(".")
    if family == "latency":
        return getattr(entry.latency_ms, percentile) if entry.latency_ms is not None else None
    if metric == "size":
        return float(entry.size_bytes)
    if metric == "memory":
        return float(entry.peak_rss_bytes) if entry.peak_rss_bytes else None
    if metric == "throughput":
        return entry.throughput[-1].per_second if entry.throughput else None  # of the largest batch
    if metric == "instructions":
        return entry.instructions.median if entry.instructions is not None else None
    if metric == "size_ratio":
        return baseline.size_bytes / entry.size_bytes if baseline and entry.size_bytes else None
    if metric in DROPS:
        drop = entry.accuracy_drop if isinstance(entry, Deployable) else None
        told = drop is not None and metric in (SCORE_DROP, f"{main_metric(entry.metrics)}_drop")
        return drop.value if drop is not None and told else None
    if metric == "speedup":
        speedup = entry.speedup if isinstance(entry, Deployable) else None
        return speedup.value if speedup is not None else None
    return entry.metrics.get(metric)


def show(metric: str, value: float | None) -> str:
    """A value with its unit, as a rule would write it."""
    if value is None or not math.isfinite(value):
        return "nothing" if value is None else "not a number"
    units = METRICS[metric].units
    if metric in DROPS:
        return f"{value * 100:.2f}pt"
    if units == FRACTION:
        return f"{value * 100:.2f}%"
    if units == TIME:
        return f"{value:.3g}ms"
    if units == BYTES:
        return _scaled(value, ("GB", "MB", "kB"), BYTES, "B")
    if units == COUNT:
        return _scaled(value, ("G", "M", "k"), COUNT, "")
    if units == RATE:
        return f"{value:.4g}/s"
    return f"{value:.3g}x" if "x" in units else f"{value:.3g}"


def _scaled(value: float, names: tuple[str, ...], units: dict[str, float], least: str) -> str:
    name = next((n for n in names if abs(value) >= units[n]), least)
    return f"{value / units[name]:.4g}{name}"
