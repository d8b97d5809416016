"""Removing heads and FFN neurons, with a least-squares repair of the layer that reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, cast

from edgekit.nn.calibration import Calibration, Moments, groups, input_moments
from edgekit.nn.surgery import head_columns, head_size, part, part_path, prune_heads, resize_ffn
from edgekit.progress import Progress

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

__all__ = ["RIDGE", "Width", "narrow", "repair"]

Width = Literal["heads", "ffn"]
READERS = {"heads": "attention_output", "ffn": "ffn_down"}  # the layer that reads what is removed

RIDGE = 1e-3  # of the mean input variance: keeps the solution near zero in directions that were never seen


def narrow(
    model: PreTrainedModel,
    keep: Mapping[Width, Mapping[int, torch.Tensor]],
    calibration: Calibration | None = None,
    progress: Progress | None = None,
) -> list[tuple[float, float]]:
    """Keep, in each layer that is named, only the heads and neurons `keep[width][layer]` (k,) int64; in place.

    With a calibration the readers are repaired; returns their relative errors (removed only, repaired), else nothing.
    """
    sites = {part_path(model, layer, READERS[w]): (w, layer) for w, layers in keep.items() for layer in layers}
    errors = []
    for group in groups(model, list(sites)):
        moments = input_moments(model, group, calibration, progress) if calibration is not None else {}
        for path in group:
            width, layer = sites[path]
            kept = keep[width][layer]
            if moments:
                columns = head_columns(kept, head_size(model)) if width == "heads" else kept
                errors.append(repair(part(model, layer, READERS[width]), moments[path], columns))
            (prune_heads if width == "heads" else resize_ffn)(model, layer, kept)
    return errors


def repair(module: nn.Module, moments: Moments, keep: torch.Tensor) -> tuple[float, float]:
    """Re-solve `module` (Linear or LowRankLinear, its inputs NOT yet pruned) for the inputs `keep` (k,) alone.

    Minimizes E|W x + b - (W' x_keep + b')|^2 + ridge |W' - W_keep|^2 over W' and b' (centred normal equations; of a
    low-rank layer only the second factor is solved; without a bias, nothing is centred). Columns outside `keep` are
    left as they are: the caller removes them. Returns the mean squared error relative to the output's variance (without
    a bias, its mean square), before (columns just removed) and after.
    """
    import torch

    from edgekit.nn.factored import LowRankLinear, dense_weight

    keep = keep.to(moments.mean.device)
    dense = dense_weight(module).double()
    last = module.up if isinstance(module, LowRankLinear) else cast("nn.Linear", module)
    covariance, mean = moments.covariance, moments.mean
    if last.bias is None:
        covariance, mean = moments.second, torch.zeros_like(mean)
    features = torch.eye(len(keep), dtype=torch.float64, device=dense.device)
    if isinstance(module, LowRankLinear):
        features = module.down.weight.detach().double()[:, keep]  # (rank, k)
    start = last.weight.detach().double() if isinstance(module, LowRankLinear) else dense[:, keep]
    inner = features @ covariance[keep][:, keep] @ features.T
    cross = dense @ covariance[:, keep] @ features.T  # (out, rank or k)
    ridge = RIDGE * inner.diagonal().mean().clamp_min(1e-30)
    inner_ridge = inner + ridge * torch.eye(len(inner), dtype=torch.float64, device=inner.device)
    solved = torch.linalg.solve(inner_ridge, (cross + ridge * start).T).T

    full = torch.zeros_like(dense)
    full[:, keep] = solved @ features
    removed = torch.zeros_like(dense)
    removed[:, keep] = start @ features
    total = _energy(dense, covariance).clamp_min(1e-30)
    before = (_energy(dense - removed, covariance) + ((dense - removed) @ mean).square().sum()) / total
    after = _energy(dense - full, covariance) / total
    _write(last, solved, keep, shift=(dense - full) @ mean)
    return float(before), float(after)


def _energy(weight: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    """E|W (x - mean)|^2 = trace(W C W^T)."""
    return ((weight @ covariance) * weight).sum()


def _write(last: nn.Linear, solved: torch.Tensor, keep: torch.Tensor, *, shift: torch.Tensor) -> None:
    """Store the solution; the mean of what is lost goes into the bias."""
    weight = last.weight.data
    if weight.shape == solved.shape:
        last.weight.data = solved.to(weight.dtype).contiguous()
    else:
        weight[:, keep] = solved.to(weight.dtype)
    if last.bias is not None:
        last.bias.data = (last.bias.data.double() + shift).to(weight.dtype)
