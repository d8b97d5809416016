"""Sizes of a smaller decoder: from shares to remove, or from a budget of parameters spread by measured damage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Literal

from edgekit.errors import StageError
from edgekit.nn.decoder_families import decoder_family
from edgekit.nn.decoder_sizes import Sizes, inexpressible, parameters, sizes_of, unit_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["DIMENSIONS", "Dimension", "by_budget", "by_share", "options"]

Dimension = Literal["layers", "hidden", "groups", "ffn"]
DIMENSIONS: tuple[Dimension, ...] = ("layers", "hidden", "groups", "ffn")
PROBES = 6  # sizes of one dimension that are tried
FINALISTS = 4  # combinations that are measured


def options(model: PreTrainedModel, dimension: Dimension, round_to: int, sizes: Sizes | None = None) -> list[int]:
    """Sizes that the dimension of a model of `sizes` (None: its own) can be cut to, descending, its own first."""
    sizes = sizes or sizes_of(model.config)
    full = int(getattr(sizes, dimension))
    if dimension == "layers":
        return list(range(full, 0, -1))
    columns = sizes.shared * sizes.head if dimension == "groups" else 1
    unit = unit_of(full * columns, round_to)
    found = [n for n in range(full - 1, 0, -1) if n * columns % unit == 0]
    return [full, *(n for n in found if not inexpressible(model.config, replace(sizes, **{dimension: n})))]


def by_share(model: PreTrainedModel, shares: dict[Dimension, float], round_to: int) -> tuple[Sizes, dict[str, str]]:
    """The nearest sizes that can be had after each dimension lost its share, and why a dimension lost nothing.

    Raises StageError for a dimension that the architecture cannot lose.
    """
    sizes = sizes_of(model.config)
    fixed = decoder_family(model.config.model_type).fixed_hidden
    reasons: dict[str, str] = {}
    for dimension in DIMENSIONS:
        share = shares.get(dimension, 0.0)
        if not share:
            continue
        full = int(getattr(sizes, dimension))
        found = options(model, dimension, round_to, sizes)
        if fixed and dimension in ("hidden", "groups"):
            raise StageError(f"{model.config.model_type}: neither heads nor hidden width can be removed: {fixed}")
        size = min(found, key=lambda n: abs(n - full * (1 - share)))
        if size == full:
            reasons[dimension] = f"{full} is the nearest to {full * (1 - share):g} that can be had"
        sizes = replace(sizes, **{dimension: size})
    return sizes, reasons


def by_budget(
    model: PreTrainedModel,
    allowed: float,
    dimensions: Sequence[Dimension],
    round_to: int,
    damage: Callable[[Sizes], float],
) -> tuple[Sizes, dict[str, float]]:
    """The sizes with the least damage among those with at most `allowed` parameters.

    Each dimension is cut alone to a few sizes and the damage measured; for combinations the damages are added up, and
    the most promising are measured. Returns the sizes, and the damage of what was measured, by what it was.
    Raises StageError where the budget cannot be met.
    """
    full = sizes_of(model.config)
    share = allowed / parameters(model, full)
    if share >= 1:
        return full, {}
    measured: dict[str, float] = {}
    alone: dict[Dimension, dict[int, float]] = {}
    for dimension in dimensions:
        alone[dimension] = {}
        for size in _probes(options(model, dimension, round_to), share):
            at = replace(full, **{dimension: size})
            alone[dimension][size] = 0.0 if at == full else damage(at)
            measured[f"{dimension} {size}"] = alone[dimension][size]
    found = [
        (expected, sizes)
        for expected, sizes in _combinations(full, alone)
        if parameters(model, sizes) <= allowed and not inexpressible(model.config, sizes)
    ]
    if not found:
        what = f"cutting {', '.join(dimensions)} cannot reach {allowed:.0f} parameters"
        raise StageError(what, hint="allow more parameters, more dimensions, or a smaller round_to")
    finalists = [sizes for _, sizes in sorted(found, key=lambda pair: pair[0])[:FINALISTS]]
    final = {sizes: damage(sizes) for sizes in finalists}
    for sizes, worth in final.items():
        measured[" ".join(f"{d} {getattr(sizes, d)}" for d in dimensions)] = worth
    return min(final, key=lambda sizes: final[sizes]), measured


def _probes(sizes: list[int], share: float) -> list[int]:
    """At most `PROBES` of the sizes, evenly spread: the full one to about half of what the budget alone would ask."""
    near = [n for n in sizes if n >= sizes[0] * share / 2]
    step = -(-len(near) // PROBES)
    return near[::step]


def _combinations(full: Sizes, alone: dict[Dimension, dict[int, float]]) -> Iterator[tuple[float, Sizes]]:
    """All combinations of the sizes, and the sum of their damages."""
    for chosen in product(*(costs.items() for costs in alone.values())):
        sizes = replace(full, **{dimension: size for dimension, (size, _) in zip(alone, chosen, strict=True)})
        yield sum(cost for _, cost in chosen), sizes
