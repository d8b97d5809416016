"""What is timed, and which files are loaded together: drawn once from a seed, the same for every file."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from edgekit.data.table import Table
from edgekit.runtimes import Workload

__all__ = ["batches", "choose_rows", "fixed_length", "groups"]


def choose_rows(table: Table, workload: Workload) -> tuple[int, ...]:
    """Rows to time: evenly spread over the data's lengths, in seeded random order, whole batches (rows may repeat)."""
    order = sorted(
        range(len(table)), key=lambda row: len(table.texts[row]) + len(table.pairs[row] if table.pairs else "")
    )
    unit = math.lcm(workload.batch, *workload.throughput_batches)
    count = -(-min(workload.items, max(len(table), unit)) // unit) * unit
    rows = [order[(2 * at + 1) * len(table) // (2 * count)] for at in range(count)]
    random.Random(workload.seed).shuffle(rows)
    return tuple(rows)


def fixed_length(table: Table, length: int) -> Table:
    """The table, without labels, with every text repeated until it surely has `length` tokens: truncation then makes it
    exactly so."""

    def stretch(texts: Sequence[str]) -> tuple[str, ...]:
        return tuple(" ".join([text or "a"] * -(-length // max(1, len(text.split())))) for text in texts)

    return Table(stretch(table.texts), stretch(table.pairs) if table.pairs else None, name=table.name)


def groups(ids: Sequence[str], baseline: str, at_once: int) -> list[tuple[str, ...]]:
    """The files of each sitting: the baseline and again the baseline (the A/A control), and as many others as fit.

    Where there is room, they too are loaded twice: a process has a speed of its own, and two tell more than one.
    """
    others = [name for name in ids if name != baseline]
    times = 2 if 2 * len(ids) <= at_once else 1
    sittings = batches(others, max(1, at_once - 2)) or [()]
    return [(baseline, baseline, *(name for name in some for _ in range(times))) for some in sittings]


def batches(names: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """The names in their order, `size` at a time."""
    return [tuple(names[at : at + size]) for at in range(0, len(names), size)]
