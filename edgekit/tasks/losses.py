"""The losses that tasks are made of. Tensors: logits (n, classes), vectors (n, width)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

__all__ = ["UNLABELED", "cross_entropy", "hard_loss", "soft_loss"]

UNLABELED = -100  # torch's own ignore_index


def hard_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    weights: torch.Tensor | None = None,
    smoothing: float = 0.0,
    summed: bool = False,
) -> torch.Tensor:
    """Cross-entropy with label numbers (n,), the mean or the sum; rows labelled UNLABELED do not count, and of none but
    them it is 0."""
    from torch.nn import functional as F

    if not bool((labels != UNLABELED).any()):
        return logits.sum() * 0.0
    return F.cross_entropy(
        logits.float(),
        labels,
        weight=weights,
        ignore_index=UNLABELED,
        label_smoothing=smoothing,
        reduction="sum" if summed else "mean",
    )


def soft_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 KL(teacher || student) of logits softened by T (Hinton et al., arXiv 1503.02531), mean over the rows."""
    from torch.nn import functional as F

    log_student = F.log_softmax(student.float() / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher.float() / temperature, dim=-1)
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2


def cross_entropy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Mean cross-entropy (nats) of logits (n, classes) with label numbers (n,), UNLABELED left out.

    Not finite where the logits are not, 0 where nothing is labelled.
    """
    counted = labels != UNLABELED
    if not counted.any():
        return 0.0
    shifted = logits[counted].astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    return float(np.mean(log_sum - shifted[np.arange(len(shifted)), labels[counted]]))
