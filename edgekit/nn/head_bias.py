"""Relative positions that are a table with one column for each head, read by all layers (MPNet).

A layer that lost heads reads only its own columns. Which ones is a buffer of its attention module, `position_heads`, so
that it is saved and loaded with the weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["pick_columns"]

BUFFER = "position_heads"


def pick_columns(attention: nn.Module, keep: torch.Tensor) -> None:
    """Let `attention` read only the columns `keep` (k,) int64 of those it reads now."""
    chosen = getattr(attention, BUFFER, None)
    if chosen is None:
        attention.register_buffer(BUFFER, keep.clone())
        attention.register_forward_pre_hook(_pick)
    else:
        setattr(attention, BUFFER, chosen[keep.to(chosen.device)])


def _pick(attention: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """`MPNetSelfAttention(hidden_states, attention_mask, position_bias)`; a bias is (batch, heads, length, length)."""
    states, mask, bias, *rest = inputs
    return states, mask, bias[:, getattr(attention, BUFFER)], *rest
