"""Which layers have to stay in float, so that a quantized file loses no more than it may: measured, file by file.

A layer's sensitivity is how far the file's answers move when that layer alone is quantized. Layers go back to float in
that order; how many, is found by halving. Every figure is of a file that was written and run in its own runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgekit.artifact import Artifact
from edgekit.data.table import Table
from edgekit.errors import StageError
from edgekit.stages.base import Context

if TYPE_CHECKING:
    from edgekit.evaluate import Predictions
    from edgekit.tasks.base import Judged

__all__ = ["Controlled", "fewest", "keep_within"]

SENSITIVITY_ROWS = 64


@dataclass(frozen=True)
class Controlled:
    """`keep`: layers in float; `drop`: accuracy lost with them, and with none (`drop_of_all`), on `rows` rows;
    `sensitivity`: nats that the answers move (mean KL divergence) when that layer alone is quantized."""

    keep: tuple[str, ...]
    drop: float
    drop_of_all: float
    rows: int
    sensitivity: Mapping[str, float] = field(default_factory=dict)


def keep_within(
    limit: float,
    layers: Sequence[str],
    write: Callable[[Collection[str]], None],
    source: Artifact,
    target: Artifact,
    context: Context,
) -> Controlled:
    """The fewest of `layers`, the most sensitive first, that keep the drop of `target` within `limit`.

    `write(keep)` writes `target` with those layers in float; it was called with none, and ends with those found.
    The drop is that of the task's main metric on the validation data; without labels, the share of answers that differ
    from `source`'s. Raises StageError where there are no validation data, or the drop is too large with a single layer
    quantized.
    """
    table = context.split("validation")
    before = _judged(source, table, context)

    def drop(keep: Collection[str]) -> float:
        write(keep)
        return _lost(before, _judged(target, table, context), source)

    of_all = _lost(before, _judged(target, table, context), source)
    if of_all <= limit:
        return Controlled((), of_all, of_all, len(table))
    context.progress.say(f"{of_all:.2%} lost, {limit:.2%} allowed: measuring which layers it is")
    sensitivity = _sensitivity(layers, write, source, target, context)
    order = sorted(layers, key=lambda name: -sensitivity[name])
    count, found = fewest(len(order) - 1, limit, lambda kept: drop(order[:kept]))
    if found > limit:
        raise StageError(
            f"{found:.2%} are lost with all layers but {order[-1]} in float, {limit:.2%} allowed",
            hint="another method, or a larger --max-drop",
        )
    write(order[:count])
    return Controlled(tuple(order[:count]), found, of_all, len(table), sensitivity)


def fewest(most: int, limit: float, drop: Callable[[int], float]) -> tuple[int, float]:
    """The smallest count in 1..`most` whose drop is within `limit`, by halving (as if more never hurt), and its drop;
    `most` and its drop where none is."""
    low, high = 1, most
    best = (most, drop(most))
    if best[1] > limit:
        return best
    while low < high:
        middle = (low + high) // 2
        found = drop(middle)
        if found <= limit:
            high, best = middle, (middle, found)
        else:
            low = middle + 1
    return best


def _sensitivity(
    layers: Sequence[str],
    write: Callable[[Collection[str]], None],
    source: Artifact,
    target: Artifact,
    context: Context,
) -> dict[str, float]:
    from edgekit.tasks.base import output_of_all
    from edgekit.tasks.encoders import examples_of

    assert source.task is not None
    table = context.split("validation").spread(SENSITIVITY_ROWS)
    examples = examples_of(source.path, table, source.task)
    exact = examples.read(_predict(source, table, context).logits)
    found = {}
    for layer in context.progress.track(layers, "sensitivity"):
        write([name for name in layers if name != layer])
        output = output_of_all(_predict(target, table, context).logits, examples)
        found[layer] = float(examples.follow(output, range(len(table)), exact, 1.0))
    return found


def _judged(artifact: Artifact, table: Table, context: Context) -> Judged:
    from edgekit.evaluate import judge

    return judge(artifact, _predict(artifact, table, context), table)


def _lost(before: Judged, after: Judged, source: Artifact) -> float:
    from edgekit.tasks.encoders import task_kind

    assert source.task is not None
    main = task_kind(source.task).main
    if main in before.metrics:
        return before.metrics[main] - after.metrics[main]
    return float((before.answers != after.answers).mean())


def _predict(artifact: Artifact, table: Table, context: Context) -> Predictions:
    from edgekit.evaluate import predict

    return predict(artifact, table, threads=context.threads)
