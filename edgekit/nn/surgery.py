"""Resizing a model in place: heads, FFN neurons, layers, low-rank layers, and rebuilding all that from `Edits`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from edgekit.nn.load import Edits

__all__ = ["rebuild"]


def rebuild(model: PreTrainedModel, edits: Edits) -> None:
    """Give a freshly built model the shapes that `edits` names, so that its weights can be loaded."""
    raise AssertionError("written next")
