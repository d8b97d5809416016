"""How much each attention head, FFN neuron and layer matters, and which of them to keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgekit.nn.calibration import Calibration, Loss, run, taps
from edgekit.nn.head import output_of
from edgekit.progress import Progress, Silent

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["Scores", "choose", "gradient_scores", "layer_influence", "magnitude_scores", "spread_layers"]


@dataclass(frozen=True)
class Scores:
    """Per layer, float64 on the CPU: `heads[layer]` (heads,) and `ffn[layer]` (neurons,). Larger matters more."""

    heads: list[torch.Tensor]
    ffn: list[torch.Tensor]


def magnitude_scores(model: PreTrainedModel) -> Scores:
    """Weight norms: |W_up row| (and its gate's) x |W_down column| of a neuron, |W_O W_V| (Frobenius) of a head.

    Products, because scaling one factor up and the other down changes nothing. Each layer's scores are divided by their
    mean, so that layers can be compared.
    """
    from edgekit.nn.factored import dense_weight
    from edgekit.nn.load import encoder_layers
    from edgekit.nn.surgery import head_count, part

    heads, ffn = [], []
    for layer in range(len(encoder_layers(model))):
        up, down, value, output = (
            dense_weight(part(model, layer, name)).double().cpu()
            for name in ("ffn_up", "ffn_down", "value", "attention_output")
        )
        ffn.append(up.reshape(-1, down.shape[1], up.shape[1]).norm(dim=2).prod(0) * down.norm(dim=0))
        count = head_count(model, layer)
        values = value[-output.shape[1] :].reshape(count, -1, value.shape[1])  # (heads, size, hidden)
        outputs = output.reshape(len(output), count, -1).transpose(0, 1)  # (heads, hidden, size)
        heads.append((outputs @ values).flatten(1).norm(dim=1))
    return Scores([h / h.mean() for h in heads], [f / f.mean() for f in ffn])


def gradient_scores(
    model: PreTrainedModel,
    calibration: Calibration,
    kind: Literal["taylor", "fisher"],
    progress: Progress | None = None,
) -> Scores:
    """Importance from the gradient g = sum over tokens (and, for a head, its columns) of a * dL/da, per example.

    g is dL/dm of a mask m at 1 that multiplies the head or neuron. "taylor" is E|g| (Molchanov et al. 2017; Michel et
    al. 2019, "Are Sixteen Heads Really Better than One?"), "fisher" is E[g^2] (Kwon et al. 2022, "A Fast Post-Training
    Pruning Framework"). L is the cross-entropy to the labels, or to the model's own predictions where there are none.
    """
    import torch

    from edgekit.nn.load import encoder_layers
    from edgekit.nn.surgery import head_count, part_path

    layers = range(len(encoder_layers(model)))
    sites = [part_path(model, i, "attention_output") for i in layers] + [
        part_path(model, i, "ffn_down") for i in layers
    ]
    groups = [head_count(model, i) for i in layers] + [0 for _ in layers]  # 0: each column is its own group
    totals: list[torch.Tensor | None] = [None] * len(sites)
    with torch.enable_grad(), taps(model, sites) as seen:
        for inputs, measure in (progress or Silent()).track(calibration, "importance", len(calibration)):
            loss = summed_loss(model, inputs, measure)
            activations = [(at, a) for at, path in enumerate(sites) for a, _ in seen[path]]
            gradients = torch.autograd.grad(loss, [a for _, a in activations])
            effects: dict[int, torch.Tensor] = {}  # site -> (batch, columns), over all its calls
            for (at, a), g in zip(activations, gradients, strict=True):
                effect = (a.detach().double() * g.double()).sum(1).cpu()
                effects[at] = effects[at] + effect if at in effects else effect
            for at, per_example in effects.items():
                if groups[at]:
                    per_example = per_example.reshape(len(per_example), groups[at], -1).sum(2)
                found = (per_example.abs() if kind == "taylor" else per_example.square()).sum(0)
                before = totals[at]
                totals[at] = found if before is None else before + found
    means = [total / len(calibration.encoded) for total in totals if total is not None]
    return Scores(means[: len(layers)], means[len(layers) :])


def summed_loss(model: PreTrainedModel, inputs: dict[str, torch.Tensor], measure: Loss) -> torch.Tensor:
    """The loss summed over a batch of a `Calibration`: each example's gradient is its own."""
    return measure(output_of(model, {name: tensor.to(model.device) for name, tensor in inputs.items()}))


def layer_influence(model: PreTrainedModel, calibration: Calibration, progress: Progress | None = None) -> list[float]:
    """1 - mean cosine of each layer's input and output: "block influence" (Men et al. 2024, ShortGPT). No labels.

    Of layers that share their weights, each counts as it is the first time.
    """
    import torch

    from edgekit.nn.layers import layer_paths

    paths = layer_paths(model)
    totals, tokens = [0.0] * len(paths), 0
    with taps(model, paths) as seen:
        for mask in run(model, calibration, progress, "layer importance"):
            for i, path in enumerate(paths):
                before, after = (state[mask] for state in seen[path][0])
                totals[i] += float((1 - torch.nn.functional.cosine_similarity(before, after, dim=-1)).sum())
            tokens += int(mask.sum())
    return [total / tokens for total in totals]


def spread_layers(count: int, keep: int) -> list[int]:
    """`keep` of `count` layers, evenly spread; the first and (from two on) the last are among them."""
    if keep == 1:
        return [0]
    return [int(i * (count - 1) / (keep - 1) + 0.5) for i in range(keep)]


def choose(scores: Sequence[torch.Tensor], share: float, unit: int, *, pooled: bool) -> list[torch.Tensor]:
    """Indices to keep per layer, ascending, after a `share` (0 to 1) of all is removed.

    Counts are whole multiples of `unit` (the nearest, at least one; a layer's full width always counts as one).
    `pooled`: one budget over all layers, spent on the blocks of `unit` with the highest score, at least one a layer.
    """
    orders = [s.argsort(descending=True, stable=True) for s in scores]
    if pooled:
        wanted = max(len(scores), round(sum(len(s) for s in scores) * (1 - share) / unit))
        rest = [
            (float(scores[i][order[start : start + unit]].mean()), i)
            for i, order in enumerate(orders)
            for start in range(unit, len(order), unit)
        ]
        rest.sort(reverse=True)
        chosen = [i for _, i in rest[: wanted - len(scores)]]
        counts = [1 + chosen.count(i) for i in range(len(scores))]
    else:
        counts = [max(1, round(len(s) * (1 - share) / unit)) for s in scores]
    return [order[: n * unit].sort().values for order, n in zip(orders, counts, strict=True)]
