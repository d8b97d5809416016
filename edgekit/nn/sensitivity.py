"""How much an error in what a layer writes changes the answers: the curvature that pruning is weighed by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit.nn.calibration import Calibration, taps
from edgekit.nn.head import output_of
from edgekit.progress import Progress, Silent

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["Sensitivity", "sensitivities", "token_weights"]


@dataclass
class Sensitivity:
    """Of a matrix W that reads x and writes y: `inputs` (in, in), the covariance of x over real tokens, each weighed by
    how much y matters there, and `mean` (in,), their mean; `outputs` (out, out), E[g g^T] per example, g the gradient
    in y. Float64, on the CPU."""

    inputs: torch.Tensor
    mean: torch.Tensor
    outputs: torch.Tensor


@dataclass
class _Sums:
    second: torch.Tensor
    first: torch.Tensor
    outputs: torch.Tensor
    weight: float = 0.0

    def settled(self, examples: int) -> Sensitivity:
        mean = self.first.double() / max(self.weight, 1e-30)
        inputs = self.second.double() / max(self.weight, 1e-30) - mean[:, None] * mean
        return Sensitivity(inputs.cpu(), mean.cpu(), (self.outputs.double() / examples).cpu())


def sensitivities(
    model: PreTrainedModel,
    paths: Sequence[str],
    calibration: Calibration,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Sensitivity]:
    """One pass forward and back for the linear layers at `paths`, by path.

    g is the gradient of the logits along a random direction of the classes (drawn for each example, its entries
    independent of each other, their sum removed), so that E[g g^T] is the curvature of the squared change of the
    logits (Hutchinson's estimator): no labels, and no answer is too sure to count. Token i of an example weighs |g_i|^2
    in `inputs`: the Fisher information with its two factors taken as independent (Martens and Grosse 2015, K-FAC), but
    a token that nothing reads, as in a classifier's last layer, does not count.
    """
    sums: dict[str, _Sums] = {}
    for found in _gradients(model, paths, calibration, seed, progress):
        for path, (x, g) in found.items():
            _add(sums, path, x, g)
    return {path: total.settled(len(calibration.encoded)) for path, total in sums.items()}


def token_weights(
    model: PreTrainedModel,
    paths: Sequence[str],
    calibration: Calibration,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, list[torch.Tensor]]:
    """|g| of each real token (tokens,), by path and batch of the calibration: how much an error there matters.

    Its square would be the curvature; but then few tokens own the fit. On Banking77 with half of the encoder gone, a
    repair weighed by |g| left 10% less of the logits' squared error than one by |g|^2 or by the norms' variances.
    """
    weights: dict[str, list[torch.Tensor]] = {path: [] for path in paths}
    for found in _gradients(model, paths, calibration, seed, progress):
        for path, (_, g) in found.items():
            weights[path].append(g.norm(dim=1))
    return weights


def _gradients(
    model: PreTrainedModel, paths: Sequence[str], calibration: Calibration, seed: int, progress: Progress | None
) -> Iterator[dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Of each batch's real tokens, what the layers at `paths` read (tokens, in), and g (tokens, out). Of a layer that
    is called again for positions (`layers.part_call`), its first call, for the text."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.enable_grad(), taps(model, paths) as calls:
        batches = (progress or Silent()).track(calibration, "sensitivity", len(calibration))
        for (inputs, _), real in zip(batches, calibration.masks(), strict=True):
            logits = output_of(model, {name: tensor.to(model.device) for name, tensor in inputs.items()})
            drawn = torch.randn(logits.shape, generator=generator).to(logits.device)
            drawn = drawn - drawn.mean(-1, keepdim=True)
            mask = real.to(logits.device)
            if logits.ndim == 3:  # an answer for each token
                drawn = drawn * mask[..., None]
            read, written = zip(*(calls[path][0] for path in paths), strict=True)
            gradients = torch.autograd.grad((logits * drawn).sum(), written)
            yield {p: (x.detach()[mask], g[mask]) for p, x, g in zip(paths, read, gradients, strict=True)}


def _add(sums: dict[str, _Sums], path: str, x: torch.Tensor, g: torch.Tensor) -> None:
    """`x` (tokens, in) and `g` (tokens, out) of a batch."""
    weight = g.square().sum(1, keepdim=True)
    keep = weight[:, 0] > 0  # most tokens of a last layer do not count at all
    x, g, weight = x[keep], g[keep], weight[keep]
    weighted = x * weight
    if path not in sums:
        width, out = x.shape[1], g.shape[1]
        sums[path] = _Sums(x.new_zeros(width, width), x.new_zeros(width), g.new_zeros(out, out))
    found = sums[path]
    found.second += x.T @ weighted
    found.first += weighted.sum(0)
    found.outputs += g.T @ g
    found.weight += float(weight.sum())
