"""Zeros without a change of shape: magnitude sparsity and N:M. No file and no stock runtime here profits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

__all__ = ["encoder_linears", "n_of_m", "parse_n_of_m", "sparsify"]


def encoder_linears(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The linear layers inside the Transformer layers (factors of low-rank ones too), by path from the model."""
    from torch import nn

    from edgekit.nn.load import backbone

    _, family = backbone(model)
    prefix = f"{family.backbone}.{family.layers}."
    return {p: m for p, m in model.named_modules() if p.startswith(prefix) and isinstance(m, nn.Linear)}


def sparsify(model: PreTrainedModel, share: float) -> dict[str, float]:
    """Zero the `share` (0 to 1) of smallest |w| in each linear layer of the encoder, in place; returns their zeros."""
    import torch

    found = {}
    for path, linear in encoder_linears(model).items():
        weight = linear.weight.data
        count = round(weight.numel() * share)
        smallest = weight.abs().flatten().argsort(stable=True)[:count]
        weight.view(-1)[smallest] = 0
        found[path] = float(torch.count_nonzero(weight == 0)) / weight.numel()
    return found


def parse_n_of_m(text: str) -> tuple[int, int]:
    """ "2:4" -> (2, 4). Raises ValueError (a config then does not validate) unless 0 < n < m."""
    parts = text.split(":")
    if len(parts) != 2 or not all(p.isdigit() for p in parts) or not 0 < int(parts[0]) < int(parts[1]):
        raise ValueError(f"{text!r} is not N:M with 0 < N < M, for instance 2:4")
    return int(parts[0]), int(parts[1])


def n_of_m(model: PreTrainedModel, n: int, m: int) -> dict[str, float]:
    """Keep the `n` largest |w| of each `m` neighbours along the input dimension, in place (Mishra et al. 2021, 2:4).

    Returns zeros per layer. A layer whose input width is no multiple of `m` is left alone and not returned.
    """
    import torch

    found = {}
    for path, linear in encoder_linears(model).items():
        weight = linear.weight.data
        if weight.shape[1] % m:
            continue
        groups = weight.view(weight.shape[0], -1, m)
        order = groups.abs().argsort(dim=-1, descending=True, stable=True)
        mask = torch.ones_like(groups, dtype=torch.bool).scatter(-1, order[..., :n], False)
        groups[mask] = 0
        found[path] = float(torch.count_nonzero(weight == 0)) / weight.numel()
    return found
