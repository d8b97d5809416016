"""A classifier's head: which labels it knows, what it puts out, and whether it is a trained one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from edgekit.artifact import TaskKind
from edgekit.errors import Problem
from edgekit.model_config import label_names, read_config
from edgekit.nn.families import family_of
from edgekit.tasks.encoders import ENCODER_TASKS

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["classifies", "head_labels", "other_head", "output_of", "prepare_head"]


def head_labels(folder: Path) -> tuple[str, ...]:
    """Label names of a folder's config.json, in the head's order; empty where it has none."""
    return label_names(read_config(folder))


def classifies(kind: TaskKind) -> bool:
    """Whether a head for such a task answers with one of several labels."""
    return kind in ENCODER_TASKS and ENCODER_TASKS[kind].label_kind in ("class", "words")


def other_head(folder: Path) -> Problem | None:
    """Why the folder's head, which its architecture calls a classifier's, is none with one label for an answer; None
    where it is."""
    config = read_config(folder)
    kind, count = config.get("problem_type"), len(label_names(config))
    if kind == "multi_label_classification":
        what = f"its head gives several labels at once (problem_type {kind})"
    elif kind == "regression" or count == 1:
        what = f"its head gives a number, not a label ({f'problem_type {kind}' if kind else 'it has one output'})"
    else:
        return None
    hint = "give it a new head first: edgekit finetune MODEL OUT --train FILE, with one label a row"
    return Problem("model", f"{what}, and exports answer with one label of several", hint)


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
