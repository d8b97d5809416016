"""A classifier's head: which labels it knows, what it puts out, and whether it is a trained one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from edgekit.model_config import label_names, read_config
from edgekit.nn.families import family_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["head_labels", "output_of", "prepare_head"]


def head_labels(folder: Path) -> tuple[str, ...]:
    """Label names of a folder's config.json, in the head's order; empty where it has none."""
    return label_names(read_config(folder))


def output_of(model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The model's `output` on a batch, as `tasks.base.Examples` has it. Of a question answerer, whose two outputs are
    apart in Transformers, both: (batch, length, 2)."""
    import torch

    found = model(**inputs)
    if "start_logits" in found:
        return torch.stack((found.start_logits, found.end_logits), dim=-1)
    return cast("torch.Tensor", found.logits)


def prepare_head(model: PreTrainedModel, folder: Path, labels: tuple[str, ...]) -> set[str]:
    """Names of the head's and pooler's parameters that start at random, `model` being loaded from `folder`.

    Those that the folder does not hold in this shape do. A head for as many labels, but others, would load without a
    word and answer them by number: it is drawn anew.
    """
    import torch

    prefix = family_of(model.config.model_type).backbone + "."
    stored = _shapes(folder)
    head = {n: p for n, p in model.named_parameters() if not n.startswith(prefix)}
    fits_any = family_of(model.config.model_type).pretrained_head
    if head_labels(folder) != labels:
        drawn = {n: p for n, p in head.items() if not (fits_any and n.startswith(fits_any) and n in stored)}
        with torch.no_grad():
            for name, parameter in drawn.items():  # linear layers, and norms in some families
                if parameter.ndim > 1:
                    parameter.normal_(0.0, model.config.initializer_range)
                else:
                    parameter.fill_(1.0 if name.endswith("norm.weight") else 0.0)
        fresh = set(drawn)
    else:
        fresh = {n for n, p in head.items() if stored.get(n) != tuple(p.shape)}
    pooler = {n for n, _ in model.named_parameters() if n.startswith(f"{prefix}pooler.")}
    return fresh | {n for n in pooler if not {n, n.removeprefix(prefix)} & stored.keys()}


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the folder's weights; the tensors are not read."""
    from safetensors import safe_open

    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no dict)
    return found
