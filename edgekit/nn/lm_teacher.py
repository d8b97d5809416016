"""A decoder's teacher: asked at every step, or asked once and its likeliest answers kept on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from edgekit.nn.capture import capture
from edgekit.nn.lm_losses import top_loss
from edgekit.nn.lm_rows import IGNORED, Rows
from edgekit.nn.lm_vocabulary import Shared
from edgekit.nn.losses import LayerMap, hidden_loss, layer_pairs, soft_loss

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["Answers", "Kept", "Layers", "Live", "Teacher", "pair_layers", "predicting"]


class Teacher(Protocol):
    """What a student's logits (rows, length, vocabulary) on some rows are worth, and its layers' outputs `seen`."""

    def losses(
        self, rows: list[int], logits: torch.Tensor, temperature: float, seen: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """T^2 KL(teacher || student) of the tokens that count, mean; and the hidden states' relative error (or 0)."""


@dataclass(frozen=True)
class Layers:
    """Layers to capture, under the same names for student and teacher; `projections` map the student's states to the
    teacher's width where they differ."""

    student: dict[str, torch.nn.Module]
    teacher: dict[str, torch.nn.Module]
    projections: torch.nn.ModuleDict


@dataclass(frozen=True)
class Live:
    """The teacher beside the student, in every step."""

    model: PreTrainedModel
    rows: Rows
    shared: Shared
    layers: Layers | None = None

    def losses(
        self, rows: list[int], logits: torch.Tensor, temperature: float, seen: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        batch = self.rows.batch(rows, str(logits.device))
        labels = batch.pop("labels")
        with torch.no_grad(), capture(self.layers.teacher if self.layers else {}) as told:
            batch["input_ids"] = self.shared.translate(batch["input_ids"])
            answers = self.model(**batch, use_cache=False).logits
        places = predicting(labels)
        mine, theirs = self.shared.of_student(logits[places]), self.shared.of_teacher(answers[places])
        return soft_loss(mine, theirs, temperature), self._hidden(seen, told, labels)

    def _hidden(
        self, seen: dict[str, torch.Tensor], told: dict[str, torch.Tensor], labels: torch.Tensor
    ) -> torch.Tensor:
        total = labels.new_zeros((), dtype=next(iter(self.model.parameters())).dtype)
        if self.layers is None:
            return total
        mask = predicting(labels)
        for name, states in seen.items():
            projections = self.layers.projections
            mine = projections[name](states.float()) if name in projections else states
            total = total + hidden_loss(mine, told[name], mask) / len(seen)
        return total


@dataclass(frozen=True)
class Answers:
    """The likeliest next tokens and their log-probabilities, (tokens, count), of every row one after the other."""

    ids: NDArray[np.int32]
    log_p: NDArray[np.float32]


@dataclass(frozen=True)
class Kept:
    """What the teacher said when it was asked, at the temperature it was asked at."""

    rows: Rows
    shared: Shared
    answers: Answers

    def losses(
        self, rows: list[int], logits: torch.Tensor, temperature: float, seen: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        places = predicting(self.rows.batch(rows)["labels"])
        chosen = [self.rows.begins[row] + np.flatnonzero(mask) for row, mask in zip(rows, places.numpy(), strict=True)]
        wanted = np.concatenate(chosen)
        ids = torch.from_numpy(self.answers.ids[wanted].astype(np.int64)).to(logits.device)
        log_p = torch.from_numpy(self.answers.log_p[wanted]).to(logits.device)
        mine = self.shared.of_student(logits[places.to(logits.device)])
        return top_loss(mine, ids, log_p, temperature), mine.new_zeros(())


def predicting(labels: torch.Tensor) -> torch.Tensor:
    """Where (rows, length) a token that counts is predicted: one place before it."""
    from torch.nn import functional as F

    return F.pad(labels[:, 1:] != IGNORED, (0, 1))


def decoder_layers(model: PreTrainedModel) -> torch.nn.ModuleList:
    """The list of a decoder's layers: the one list of modules as long as config.json says."""
    from torch.nn import ModuleList

    count = model.config.get_text_config().num_hidden_layers
    return next(m for m in model.modules() if isinstance(m, ModuleList) and len(m) == count)


def pair_layers(student: PreTrainedModel, teacher: PreTrainedModel, how: LayerMap) -> Layers:
    """Layers that follow each other (`layer_pairs`); where the widths differ, with a learned map to the teacher's,
    whose rows start orthonormal."""
    from torch import nn

    ours, theirs = decoder_layers(student), decoder_layers(teacher)
    pairs = layer_pairs(len(ours), len(theirs), how)
    small, large = (model.config.get_text_config().hidden_size for model in (student, teacher))
    projections = nn.ModuleDict()
    if small != large:
        for layer, _ in pairs:
            projections[f"hidden{layer}"] = nn.Linear(small, large, bias=False)
            nn.init.orthogonal_(projections[f"hidden{layer}"].weight)  # type: ignore[arg-type]
    return Layers(
        {f"hidden{mine}": ours[mine] for mine, _ in pairs},
        {f"hidden{mine}": theirs[other] for mine, other in pairs},
        projections.to(student.device),
    )
