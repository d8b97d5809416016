"""The shape of an encoder, layer by layer: what each way to cut it loses, and the best one within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edgekit.artifact import Frozen
from edgekit.errors import StageError
from edgekit.nn.allocate import allocate
from edgekit.nn.calibration import Calibration, groups
from edgekit.nn.ladder import Ladder, ladder
from edgekit.nn.narrow import Width
from edgekit.progress import Progress

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["SHARED", "Cost", "Ladders", "Structure", "Widths", "best_structure", "find_ladders", "widths_of"]

SHARED = "the layers share their weights, so that none can be cut alone"


class Structure(Frozen):
    """Heads and FFN neurons of each layer."""

    heads: tuple[int, ...]
    ffn: tuple[int, ...]


class Widths(Frozen):
    """An encoder before it is cut; all its layers are alike."""

    layers: int
    hidden: int
    heads: int
    head_size: int
    ffn: int

    @property
    def whole(self) -> Structure:
        return Structure(heads=(self.heads,) * self.layers, ffn=(self.ffn,) * self.layers)

    def levels(self, unit: int) -> tuple[list[int], list[int]]:
        """The sizes to choose from: any number of heads, multiples of `unit` neurons; and all."""
        return list(range(1, self.heads + 1)), [*range(unit, self.ffn, unit), self.ffn]


class Cost(Protocol):
    """What a block costs, in any unit."""

    def __call__(self, width: Width, layer: int, size: int) -> float: ...


@dataclass(frozen=True)
class Ladders:
    """Each layer's way down, for its heads and for its neurons."""

    heads: list[Ladder]
    ffn: list[Ladder]

    def keep(self, structure: Structure) -> dict[Width, dict[int, torch.Tensor]]:
        """What stays, of the layers in which something goes."""
        found: dict[Width, dict[int, torch.Tensor]] = {}
        for width, ladders, sizes in self._blocks(structure):
            found[width] = {
                i: way.keep(n) for i, (way, n) in enumerate(zip(ladders, sizes, strict=True)) if n < len(way.order)
            }
        return found

    def loss(self, structure: Structure) -> float:
        """The predicted squared change of the logits (their sum), blocks taken as independent of each other."""
        return sum(
            way.loss(n) for _, ladders, sizes in self._blocks(structure) for way, n in zip(ladders, sizes, strict=True)
        )

    def _blocks(self, structure: Structure) -> tuple[tuple[Width, list[Ladder], Sequence[int]], ...]:
        return (("heads", self.heads, structure.heads), ("ffn", self.ffn, structure.ffn))


def widths_of(model: PreTrainedModel) -> Widths:
    """Raises StageError where layers differ, or share their weights."""
    from edgekit.nn.layers import encoder_layers, shares_weights
    from edgekit.nn.surgery import ffn_width, head_count, head_size, part

    layers = range(len(encoder_layers(model)))
    heads, ffn = {head_count(model, i) for i in layers}, {ffn_width(model, i) for i in layers}
    if len(heads) > 1 or len(ffn) > 1:
        raise StageError("the layers have different widths already", hint="trim the model from before it was pruned")
    if shares_weights(model):
        raise StageError(SHARED, hint="use edgekit prune")
    hidden = int(getattr(part(model, 0, "attention_output"), "out_features"))  # noqa: B009 (a module's attribute)
    return Widths(layers=len(layers), hidden=hidden, heads=heads.pop(), head_size=head_size(model), ffn=ffn.pop())


def find_ladders(
    model: PreTrainedModel, calibration: Calibration, *, unit: int, seed: int = 0, progress: Progress | None = None
) -> Ladders:
    """Each layer's ways down, `unit` neurons or one head at a time, weighed by the curvature of the logits."""
    from edgekit.nn.factored import dense_weight
    from edgekit.nn.sensitivity import sensitivities
    from edgekit.nn.surgery import part_path

    widths = widths_of(model)
    layers = range(widths.layers)
    size_step = {part_path(model, i, "attention_output"): (widths.head_size, 1) for i in layers}
    size_step |= {part_path(model, i, "ffn_down"): (1, unit) for i in layers}
    found: dict[str, Ladder] = {}
    for paths in groups(model, list(size_step)):
        for path, seen in sensitivities(model, paths, calibration, seed=seed, progress=progress).items():
            weight = dense_weight(model.get_submodule(path)).double().cpu()
            size, step = size_step[path]
            found[path] = ladder(weight, seen.inputs, seen.outputs, group=size, step=step)
    return Ladders(
        [found[part_path(model, i, "attention_output")] for i in layers],
        [found[part_path(model, i, "ffn_down")] for i in layers],
    )


def best_structure(ladders: Ladders, widths: Widths, cost: Cost, budget: float, unit: int) -> Structure:
    """The structure that loses least with costs that add up to `budget` at most.

    Raises StageError where even one head and `unit` neurons in each layer are over it.
    """
    heads, neurons = widths.levels(unit)
    losses, costs = [], []
    blocks: tuple[tuple[Width, list[Ladder], list[int]], ...] = (
        ("heads", ladders.heads, heads),
        ("ffn", ladders.ffn, neurons),
    )
    for width, ways, sizes in blocks:
        for layer, way in enumerate(ways):
            losses.append([way.loss(size) for size in sizes])
            costs.append([cost(width, layer, size) for size in sizes])
    chosen = allocate(losses, costs, budget)
    return Structure(
        heads=tuple(heads[at] for at in chosen[: widths.layers]),
        ffn=tuple(neurons[at] for at in chosen[widths.layers :]),
    )
