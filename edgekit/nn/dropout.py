"""Dropout other than the model's own, for as long as it trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["set_dropout"]


def set_dropout(model: PreTrainedModel, share: float | None) -> None:
    """Drop this share of every state and attention weight in training; None leaves the model as it is.

    `config` stays: a saved model loads with the dropout that it was made with.
    """
    from torch.nn import Dropout

    if share is None:
        return
    for module in model.modules():
        if isinstance(module, Dropout):
            module.p = share
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = share
