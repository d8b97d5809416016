"""AdamW with the right groups, and its learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from torch.optim import AdamW
    from torch.optim.lr_scheduler import LambdaLR

__all__ = ["Schedule", "make_optimizer", "make_schedule"]

Schedule = Literal["linear", "cosine", "constant"]


def make_optimizer(
    parameters: Mapping[str, torch.nn.Parameter],
    *,
    learning_rate: float,
    weight_decay: float,
    rates: Mapping[str, float],
) -> AdamW:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101) over named parameters.

    `rates`: how many times faster than `learning_rate` those learn that are named. Vectors (biases, norms) are not
    decayed.
    """
    from torch.optim import AdamW

    groups = []
    factors = {name: rates.get(name, 1.0) for name in parameters}
    for factor in sorted(set(factors.values())):
        for decayed in (False, True):
            members = [p for n, p in parameters.items() if factors[n] == factor and (p.ndim > 1) == decayed]
            if members:
                rate, decay = learning_rate * factor, weight_decay if decayed else 0.0
                groups.append({"params": members, "lr": rate, "initial_lr": rate, "weight_decay": decay})
    return AdamW(groups, fused=True)  # one pass over the memory: an embedding makes the update memory-bound


def make_schedule(optimizer: AdamW, kind: Schedule, *, steps: int, warmup: float, done: int = 0) -> LambdaLR:
    """Warm-up over the share `warmup` of `steps`, then the schedule; `done` steps are behind already."""
    from transformers import optimization as hf

    first = math.ceil(steps * warmup)
    if kind == "linear":
        schedule = hf.get_linear_schedule_with_warmup(optimizer, first, steps, last_epoch=done - 1)
    elif kind == "cosine":
        schedule = hf.get_cosine_schedule_with_warmup(optimizer, first, steps, last_epoch=done - 1)
    else:
        schedule = hf.get_constant_schedule_with_warmup(optimizer, first, last_epoch=done - 1)
    return schedule  # type: ignore[no-any-return]
