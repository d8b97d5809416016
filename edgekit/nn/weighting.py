"""What a low-rank factorization should be exact about: weights on a layer's inputs, from data that flow through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgekit.nn.calibration import Calibration, Moments, taps
from edgekit.nn.importance import summed_loss
from edgekit.nn.sensitivity import Sensitivity
from edgekit.progress import Progress, Silent
from edgekit.tasks.base import Tokens

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["UNSEEN", "Weighting", "curvature_weighting", "fisher_weightings", "frequency_weighting", "moment_weighting"]

FLAT = 1e-2  # of the mean curvature, for outputs that the examples do not depend on
UNSEEN = 0.1  # share of a table's weight that is spread evenly, for the tokens that the calibration has not seen


@dataclass(frozen=True)
class Weighting:
    """`root` is M of the error |(W - W_r) M|^2, float64: (d,) diagonal or (d, d); None is the identity.

    `mean` (d,), where given: the inputs' mean; the error is then about centred inputs, and the bias takes the rest.
    `outputs` (out, out), where given: L of |L (W - W_r) M|^2, symmetric and invertible; errors of different layers then
    compare as they are.
    """

    root: torch.Tensor | None = None
    mean: torch.Tensor | None = None
    outputs: torch.Tensor | None = None


def curvature_weighting(seen: Sensitivity, *, has_bias: bool) -> Weighting:
    """What an error changes the logits by: whitened inputs, and the root of the curvature in the outputs.

    Source: the Kronecker-factored Fisher information as a metric on both sides, as in Chekalina et al. 2025,
    "Generalized Fisher-Weighted SVD".
    """
    import torch

    values, vectors = torch.linalg.eigh(seen.outputs)
    damped = values.clamp_min(0) + FLAT * values.mean().clamp_min(1e-30)
    second = seen.inputs + seen.mean[:, None] * seen.mean
    inputs = moment_weighting(Moments(seen.mean, second, 1.0), has_bias=has_bias)
    return replace(inputs, outputs=(vectors * damped.sqrt()) @ vectors.T)


def moment_weighting(moments: Moments, *, has_bias: bool) -> Weighting:
    """Whitening: M is the Cholesky factor of the inputs' covariance (second moment where no bias can take the mean).

    |(W - W_r) M|^2 is then the mean squared error of the layer's output (Wang et al. 2024, SVD-LLM).
    """
    import torch

    matrix = moments.covariance if has_bias else moments.second
    jitter = 1e-8 * matrix.diagonal().mean().clamp_min(1e-30)
    eye = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    while True:  # the covariance of few tokens is singular; M is never inverted, so the jitter may be tiny
        factor, failed = torch.linalg.cholesky_ex(matrix + jitter * eye)
        if not int(failed):
            return Weighting(factor, moments.mean if has_bias else None)
        jitter *= 10


def frequency_weighting(calibration: Calibration, count: int) -> Weighting:
    """How often each of `count` tokens occurs: an embedding's input is one-hot, so this is its second moment."""
    import torch

    assert isinstance(calibration.encoded, Tokens)  # pictures are not looked up
    ids = torch.tensor([i for row in calibration.encoded.ids for i in row])
    return Weighting(smooth(torch.bincount(ids, minlength=count).double()).sqrt())


def smooth(weights: torch.Tensor) -> torch.Tensor:
    """Mix (n,) non-negative weights, scaled to sum 1, with an even share of `UNSEEN`."""
    return (1 - UNSEEN) * weights / weights.sum().clamp_min(1e-30) + UNSEEN / len(weights)


def fisher_weightings(
    model: PreTrainedModel, paths: Sequence[str], calibration: Calibration, progress: Progress | None = None
) -> dict[str, Weighting]:
    """FWSVD (Hsu et al. 2022): each input's weight is the root of the summed Fisher information of its weights.

    The Fisher information of a weight is its squared gradient, exact per example. With inputs X (length, in) and output
    gradients D (length, out) of one example, the sum over outputs is diag(X^T D D^T X): no weight-sized tensor is made.
    """
    import torch

    totals: dict[str, torch.Tensor] = {}
    with torch.enable_grad(), taps(model, paths) as seen:
        for inputs, measure in (progress or Silent()).track(calibration, "Fisher information", len(calibration)):
            loss = summed_loss(model, inputs, measure)
            calls = [(path, x, y) for path in paths for x, y in seen[path]]
            gradients = torch.autograd.grad(loss, [y for _, _, y in calls])
            for (path, read, _), gradient in zip(calls, gradients, strict=True):
                x, d = read.detach(), gradient.double()
                kernel = d @ d.transpose(1, 2)  # (batch, length, length)
                if x.is_floating_point():
                    x = x.double()
                    found = ((kernel @ x) * x).sum((0, 1))
                else:  # token ids: the same formula for one-hot inputs
                    per_token = (kernel * (x[:, :, None] == x[:, None, :])).sum(2)
                    table = model.get_submodule(path)
                    found = torch.zeros(table.num_embeddings, dtype=torch.float64, device=x.device)
                    found.index_add_(0, x.flatten(), per_token.flatten())
                totals[path] = totals[path] + found if path in totals else found
    return {path: Weighting(smooth(total).sqrt()) for path, total in totals.items()}
