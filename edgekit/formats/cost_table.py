"""What each head and FFN neuron of an encoder costs in milliseconds, as measured in the runtime that will be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from edgekit.artifact import Frozen
from edgekit.errors import UsageError
from edgekit.nn.narrow import Width
from edgekit.nn.structure import Structure, Widths

__all__ = ["CostTable", "Curve", "Precision", "fit", "knots", "load_costs"]

Precision = Literal["f32", "int8"]


class Curve(Frozen):
    """Milliseconds that a block takes beyond its smallest size, by its size; straight between the sizes."""

    sizes: tuple[int, ...]
    ms: tuple[float, ...]

    def at(self, size: int) -> float:
        return float(np.interp(size, self.sizes, self.ms))


class CostTable(Frozen):
    """`whole_ms`: the whole model; `smallest_ms`: with every block at its smallest. A classifier's last layer computes
    one token where the others compute all, so it has curves of its own. `error`: of the predictions of what was
    measured, relative, their mean. `machine`: what decides the times there (processor, versions)."""

    schema_version: Literal[1] = 1
    machine: dict[str, str]
    runtime: str
    threads: int
    batch: int
    tokens: float
    precision: Precision
    widths: Widths
    whole_ms: float
    smallest_ms: float
    heads: Curve
    ffn: Curve
    last_heads: Curve
    last_ffn: Curve
    error: float
    measured: int

    def predict(self, structure: Structure) -> float:
        """Milliseconds of an inference: the sum of what the blocks cost."""
        heads, ffn = enumerate(structure.heads), enumerate(structure.ffn)
        blocks = sum(self.cost("heads", i, n) for i, n in heads) + sum(self.cost("ffn", i, n) for i, n in ffn)
        return self.smallest_ms + blocks

    def cost(self, width: Width, layer: int, size: int) -> float:
        """Milliseconds that a block takes beyond its smallest size."""
        last = layer == self.widths.layers - 1
        curves = {"heads": (self.heads, self.last_heads), "ffn": (self.ffn, self.last_ffn)}
        return curves[width][last].at(size)

    def products(self, layer: int, weights: int) -> float:
        """Milliseconds of matrix products with so many weights, beyond the smallest FFN's: as many neurons' worth. Two
        thin matrices in a row are what an FFN of few neurons is."""
        return self.cost("ffn", layer, weights // (2 * self.widths.hidden))

    def check(self, widths: Widths, precision: Precision, threads: int, batch: int) -> None:
        """Raises UsageError where the table is of another model, file or workload."""
        wanted = {"widths": widths, "precision": precision, "threads": threads, "batch": batch}
        found = {name: getattr(self, name) for name in wanted}
        other = [f"{name}: {found[name]}, not {value}" for name, value in wanted.items() if found[name] != value]
        if other:
            raise UsageError(f"the table of costs is of something else ({'; '.join(other)})", hint="measure a new one")

    def check_machine(self, here: dict[str, str]) -> None:
        """Raises UsageError where the table was measured on another machine than `here`."""
        differ = [name for name in here if self.machine.get(name) != here[name]]
        other = [f"{name}: {self.machine.get(name, 'unknown')}, here {here[name]}" for name in differ]
        if other:
            raise UsageError(
                f"the table of costs was measured on another machine ({'; '.join(other)})",
                hint="measure it here (leave costs out), or say foreign_costs to prune for that machine",
            )


def load_costs(path: Path) -> CostTable:
    """Raises UsageError for a file that is no table."""
    try:
        return CostTable.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file") from None
    except (ValidationError, OSError) as error:
        raise UsageError(f"{path}: not a table of costs ({str(error).splitlines()[0]})") from None


@dataclass(frozen=True)
class _Knots:
    """The sizes at which each curve is known; its first is its zero."""

    heads: tuple[int, ...]
    ffn: tuple[int, ...]
    last_heads: tuple[int, ...]
    last_ffn: tuple[int, ...]

    @property
    def all(self) -> tuple[tuple[int, ...], ...]:
        return (self.heads, self.ffn, self.last_heads, self.last_ffn)


def knots(widths: Widths, unit: int) -> _Knots:
    """Where curves may bend: quarters of the whole, and one head or one `unit` of neurons."""
    heads = tuple(sorted({1, *(max(1, widths.heads * k // 3) for k in (1, 2, 3))}))
    ffn = tuple(sorted({min(unit, widths.ffn), *(max(1, widths.ffn * k // 4) for k in (1, 2, 3, 4))}))
    return _Knots(heads, ffn, (heads[0], heads[-1]), (ffn[0], ffn[-1]))


def fit(
    structures: Sequence[Structure], shares: Sequence[float], widths: Widths, unit: int
) -> tuple[float, list[Curve], float]:
    """The smallest model's share of the whole's time, the four curves (in shares too), and the mean relative error.

    `shares[i]`: time of `structures[i]` / of the whole model. Least squares of the relative errors; no curve falls.
    """
    bends = knots(widths, unit)
    rows = np.stack([_row(structure, bends) for structure in structures])
    measured = np.asarray(shares)
    steps = _rises(rows / measured[:, None])
    error = float(np.mean(np.abs(rows @ steps / measured - 1)))
    curves, at = [], 1
    for sizes in bends.all:
        rises = steps[at : at + len(sizes) - 1]
        curves.append(Curve(sizes=sizes, ms=(0.0, *np.cumsum(rises).tolist())))
        at += len(sizes) - 1
    return float(steps[0]), curves, error


def _rises(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The x >= 0 for which `rows` x is nearest to 1: what would fall is taken out until nothing does."""
    used = np.ones(rows.shape[1], dtype=bool)
    while True:
        found = np.zeros(rows.shape[1])
        found[used] = np.linalg.lstsq(rows[:, used], np.ones(len(rows)), rcond=None)[0]
        if (found >= 0).all():
            return found
        used &= found > 0


def _row(structure: Structure, bends: _Knots) -> NDArray[np.float64]:
    """What the rises of the curves are multiplied by: 1, then for each piece of each curve how much of it is used."""
    inner = (structure.heads[:-1], structure.ffn[:-1])
    last = (structure.heads[-1:], structure.ffn[-1:])
    row = [1.0]
    for sizes, used in zip(bends.all, (*inner, *last), strict=True):
        for low, high in pairwise(sizes):
            row.append(float(sum(np.clip((size - low) / (high - low), 0, 1) for size in used)))
    return np.asarray(row)
