"""Loading decoder language models as plain Transformers checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.nn.load import load_checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["load_decoder"]


def load_decoder(folder: Path, *, device: str = "cpu") -> PreTrainedModel:
    """A causal language model in float32, eval mode, from config.json and safetensors (one file or shards).

    Raises ModelError for a pickle, missing weights, or an architecture that Transformers has no causal model for.
    No code of the folder is run.
    """
    return load_checkpoint(folder, "text-generation", device=device)[0]
