"""What is timed and in which order: drawn once from a seed, the same for every file."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Literal

from edgekit.data.table import Table
from edgekit.runtimes import Workload

__all__ = ["Kind", "choose_rows", "fixed_length", "schedule"]

Kind = Literal["latency", "control", "throughput"]
THROUGHPUT_ROUNDS = 2


def choose_rows(table: Table, workload: Workload) -> tuple[int, ...]:
    """Rows to time: evenly spread over the data's lengths, in seeded random order, whole batches (rows may repeat)."""
    order = sorted(
        range(len(table)), key=lambda row: len(table.texts[row]) + len(table.pairs[row] if table.pairs else "")
    )
    unit = math.lcm(workload.batch, max(1, workload.throughput_batch))
    count = -(-min(workload.items, max(len(table), unit)) // unit) * unit
    rows = [order[(2 * at + 1) * len(table) // (2 * count)] for at in range(count)]
    random.Random(workload.seed).shuffle(rows)
    return tuple(rows)


def fixed_length(table: Table, length: int) -> Table:
    """The table with every text repeated until it surely has `length` tokens: truncation then makes it exactly so."""

    def stretch(texts: Sequence[str]) -> tuple[str, ...]:
        return tuple(" ".join([text or "a"] * -(-length // max(1, len(text.split())))) for text in texts)

    return Table(stretch(table.texts), stretch(table.pairs) if table.pairs else None, table.labels, table.name)


def schedule(ids: tuple[str, ...], baseline: str, workload: Workload) -> list[tuple[Kind, int, str]]:
    """(kind, round, id) of every block: seeded random order, each second round the one before it backwards."""
    dice = random.Random(workload.seed)
    one: list[tuple[Kind, str]] = [*(("latency", name) for name in ids), ("control", baseline)]
    plan: list[tuple[Kind, int, str]] = []
    for number in range(workload.rounds):
        if number % 2 == 0:
            dice.shuffle(one)
        else:
            one.reverse()
        plan += [(kind, number, name) for kind, name in one]
    if workload.throughput_batch:
        for number in range(THROUGHPUT_ROUNDS):
            plan += [("throughput", number, name) for name in (ids if number % 2 == 0 else reversed(ids))]
    return plan
