"""How far a student's next-token distributions are from a teacher's. Tensors are (tokens, vocabulary)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["top_answers", "top_loss"]

LEAST = 1e-7  # of what the top leaves over: float32 has nothing below


def top_answers(logits: torch.Tensor, count: int, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and log-probabilities (tokens, count) of the `count` likeliest tokens, softened by the temperature."""
    log_p, ids = (logits.float() / temperature).log_softmax(-1).topk(min(count, logits.shape[-1]), dim=-1)
    return ids, log_p


def top_loss(student: torch.Tensor, ids: torch.Tensor, log_p: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 KL(teacher || student), mean over the tokens, where of the teacher only its top is known: all other tokens
    are one event, with the probability that is left. It is 0 for equal distributions and never above the KL divergence
    over the whole vocabulary (joining events only loses information)."""
    log_q = (student.float() / temperature).log_softmax(-1).gather(-1, ids)
    rest_p = (1 - log_p.exp().sum(-1)).clamp(min=LEAST)
    rest_q = (1 - log_q.exp().sum(-1)).clamp(min=LEAST)
    top = (log_p.exp() * (log_p - log_q)).sum(-1)
    return (top + rest_p * (rest_p.log() - rest_q.log())).mean() * temperature**2
