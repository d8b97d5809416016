"""What each key-value group, FFN neuron, hidden channel and layer of a decoder is worth, and what stays at given
sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgekit.nn.decoder_families import decoder_family, split_layer
from edgekit.nn.decoder_repair import site, sites
from edgekit.nn.decoder_sizes import Sizes, sizes_of
from edgekit.nn.decoder_statistics import influence, squares, taylor
from edgekit.nn.decoder_surgery import Keep, keep_all
from edgekit.progress import Progress

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["DecoderScores", "Importance", "best", "score"]

Importance = Literal["activation", "taylor"]


@dataclass(frozen=True)
class DecoderScores:
    """Larger is worth more: `groups[layer]` (groups,), `ffn[layer]` (neurons,), `hidden` (d,), `layers` (layers,)."""

    groups: list[torch.Tensor]
    ffn: list[torch.Tensor]
    hidden: torch.Tensor
    layers: list[float]


def score(
    model: PreTrainedModel, data: Sequence[torch.Tensor], importance: Importance, progress: Progress | None = None
) -> DecoderScores:
    """Scores on calibration windows.

    "activation": E[x^2] |W column|^2, what a column adds to the outputs of the matrices that read it (the square of
    Wanda's score, Sun et al. 2023). "taylor": what the loss loses to first order. Layers: block influence.
    """
    family, sizes = decoder_family(model.config.model_type), sizes_of(model.config)
    paths = sites(model)
    if importance == "taylor":
        worth = taylor(model, paths, data, progress)
    else:
        worth = _times_columns(model, squares(model, paths, data, progress))
    layers = range(sizes.layers)
    hidden = worth["lm_head"]
    for path in paths:
        if split_layer(family, path)[1] in family.reads:
            hidden = hidden + worth[path]
    outputs = [worth[f"{family.layers}.{i}.{family.attention_output}"] for i in layers]
    return DecoderScores(
        groups=[found.reshape(sizes.groups, -1).sum(1).cpu() for found in outputs],
        ffn=[worth[f"{family.layers}.{i}.{family.ffn_output}"].cpu() for i in layers],
        hidden=hidden.cpu(),
        layers=influence(model, data, progress),
    )


def _times_columns(model: PreTrainedModel, energy: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The energy of each column of a site, times the squared norms of all that read it."""
    import torch

    family = decoder_family(model.config.model_type)
    norms = {path: torch.zeros_like(found) for path, found in energy.items()}
    for path, module in model.named_modules():
        source = "lm_head" if path == "lm_head" else site(family, path)
        if source is not None:
            inputs_first = family.inputs_first and path != "lm_head"
            norms[source] += module.weight.detach().double().square().sum(1 if inputs_first else 0)
    return {path: found * norms[path] for path, found in energy.items()}


def best(scores: DecoderScores, old: Sizes, new: Sizes) -> Keep:
    """The best-scored of everything, at the sizes `new`; the vocabulary stays."""
    import torch

    def top(values: torch.Tensor, count: int) -> torch.Tensor:
        return values.argsort(descending=True, stable=True)[:count].sort().values

    layers = top(torch.tensor(scores.layers), new.layers).tolist()
    everything = keep_all(old)
    return Keep(
        layers=layers,
        groups={i: top(scores.groups[i], new.groups) for i in layers},
        ffn={i: top(scores.ffn[i], new.ffn) for i in layers},
        hidden=top(scores.hidden, new.hidden),
        vocabulary=everything.vocabulary,
    )
