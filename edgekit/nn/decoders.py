"""Loading decoder language models as plain Transformers checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from edgekit.errors import ModelError
from edgekit.nn.load import check_folder, model_class

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["load_decoder"]


def load_decoder(folder: Path, *, device: str = "cpu") -> PreTrainedModel:
    """A causal language model in float32, eval mode, from config.json and safetensors (one file or shards).

    Raises ModelError for a pickle, missing weights, or an architecture that Transformers has no causal model for.
    No code of the folder is run.
    """
    import torch
    from transformers.utils import logging

    check_folder(folder)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, info = model_class("text-generation").from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: {str(error).splitlines()[0]}") from None
    if info["missing_keys"]:
        lost = sorted(info["missing_keys"])
        raise ModelError(f"{folder}: {len(lost)} weight(s) missing, the first is {lost[0]}")
    return cast("PreTrainedModel", model.to(device).eval())
