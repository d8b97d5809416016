"""The losses of fine-tuning and distillation. Tensors: logits (batch, labels), states (batch, length, width)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from edgekit.errors import StageError
from edgekit.tasks.losses import UNLABELED, hard_loss, soft_loss

if TYPE_CHECKING:
    import torch

__all__ = [
    "UNLABELED",
    "LayerMap",
    "hard_loss",
    "hidden_loss",
    "layer_pairs",
    "relation_head_count",
    "relation_loss",
    "soft_loss",
]

LayerMap = Literal["uniform", "last"]


def hidden_loss(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Squared error of hidden states over the teacher's own power, where `mask` (batch, length) is 1.

    Being relative, 1.0 is "predicts nothing" for any model, and one weight serves all. 0 where nothing is left.
    """
    keep = mask.unsqueeze(-1).float()
    error = ((student.float() - teacher.float()).square() * keep).sum()
    power = (teacher.float().square() * keep).sum()
    return error / power.clamp(min=1e-12)


def relation_loss(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor, heads: int) -> torch.Tensor:
    """MiniLMv2's relation loss (Wang et al., arXiv 2012.15828) of one kind (queries, keys or values).

    The states (batch, length, width; widths may differ) are cut into `heads` relation heads; KL(teacher || student) of
    softmax(A A^T / sqrt(width / heads)), mean over heads and the positions where `mask` (batch, length) is 1.
    """
    from torch.nn import functional as F

    counted = mask.bool()
    positions = int(counted.sum())
    if positions == 0:
        return student.sum() * 0.0
    log_student = _relations(student, counted, heads)
    log_teacher = _relations(teacher, counted, heads)
    # kl_div gives 0 * (-inf - -inf) = nan at the padded keys: their probability is 0 on both sides.
    pairs = counted[:, None, None, :] & counted[:, None, :, None]
    divergence = F.kl_div(log_student, log_teacher, reduction="none", log_target=True)
    return divergence.masked_fill(~pairs, 0.0).sum() / (heads * positions)


def _relations(states: torch.Tensor, mask: torch.Tensor, heads: int) -> torch.Tensor:
    """log softmax of the scaled self-products, (batch, heads, length, length); padded keys get next to nothing."""
    batch, length, width = states.shape
    split = states.float().view(batch, length, heads, width // heads).transpose(1, 2)
    scores = split @ split.transpose(-1, -2) / math.sqrt(width // heads)
    return scores.masked_fill(~mask[:, None, None, :], -1e4).log_softmax(-1)


def layer_pairs(student: int, teacher: int, how: LayerMap) -> tuple[tuple[int, int], ...]:
    """(student layer, teacher layer) from 0, the last with the last: spread evenly, or only the last ones of both."""
    if how == "last":
        shared = min(student, teacher)
        return tuple((student - i, teacher - i) for i in range(shared, 0, -1))
    return tuple((i, math.ceil((i + 1) * teacher / student) - 1) for i in range(student))


def relation_head_count(wanted: int, student: int, teacher: int) -> int:
    """Relation heads for two widths: `wanted`, or for 0 the greatest that fits both and leaves the teacher's 32 wide.

    Raises StageError where `wanted` divides not both.
    """
    if wanted == 0:
        shared = math.gcd(student, teacher)
        return max(n for n in range(1, shared + 1) if shared % n == 0 and (n == 1 or teacher // n >= 32))
    if student % wanted or teacher % wanted:
        raise StageError(
            f"{wanted} relation heads do not divide the attention widths {student} (student) and {teacher} (teacher)",
            hint="use relation_heads=0, which chooses a number that fits both",
        )
    return wanted
