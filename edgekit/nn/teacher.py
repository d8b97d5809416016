"""What a teacher says: its logits, computed once and kept on disk, and its insides, beside the student's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.artifact import Artifact, Frozen, Task
from edgekit.data.table import Table
from edgekit.digest import SHORT, digest_json
from edgekit.nn.capture import Site, capture
from edgekit.nn.checkpoint import read_checkpoint, write_checkpoint
from edgekit.nn.evaluate import logits_of
from edgekit.nn.layers import Call, backbone, hidden_width, layer_calls, part_call
from edgekit.nn.losses import hidden_loss, relation_head_count, relation_loss
from edgekit.progress import Progress
from edgekit.tasks.base import Encoded, batches
from edgekit.tasks.encoders import examples_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["Insides", "make_projections", "teacher_logits"]

FILE = "logits.safetensors"
BATCH = 64  # rows at a time
ROOM = 4  # one part in so many of the free memory is for the teacher's states


class Source(Frozen):
    """What the logits were computed from."""

    digest: str


def teacher_logits(
    teacher: Artifact,
    load: Callable[[], PreTrainedModel],
    table: Table,
    task: Task,
    *,
    cache: Path | None,
    device: str,
    progress: Progress,
) -> NDArray[np.float32]:
    """The teacher's answers for the table, as `Examples.read` gives them, from `cache` where an earlier run or student
    left them.

    They are kept in `cache / teacher-<digest>`: the digest is that of the teacher, the data, and how they are encoded.
    `load` is called only where they must be computed.
    """
    import torch

    how = task.model_dump(mode="json", include={"kind", "max_length", "pair", "segments"})
    digest = digest_json({"teacher": teacher.key, "data": table.digest, "encoding": how})
    path = cache / f"teacher-{digest[:SHORT]}" / FILE if cache else None
    found = read_checkpoint(path, Source) if path else None
    if found is not None and found[1].digest == digest:
        return np.asarray(found[0]["answers"].numpy(), dtype=np.float32)
    examples = examples_of(teacher.path, table, task)
    logits = logits_of(load(), examples.encoded, device=device, progress=progress, label="the teacher's answers")
    answers = examples.read(logits)
    if path is not None:
        write_checkpoint(path, {"answers": torch.from_numpy(answers)}, Source(digest=digest))
    return answers


@dataclass(frozen=True)
class Insides:
    """Student and teacher side by side: hidden states of paired layers; queries, keys, values of one layer each.

    Rows that the two tokenizers cut into different numbers of tokens are left out: there, position i is not the same
    word. `projections` maps a student's hidden state to the teacher's width, where they differ.
    """

    student: PreTrainedModel
    teacher: PreTrainedModel
    student_rows: Encoded
    teacher_rows: Encoded
    pairs: tuple[tuple[int, int], ...]  # (student layer, teacher layer) for hidden states; may be empty
    relation_layers: tuple[int, int] | None
    relation_heads: int  # 0: chosen to fit
    projections: torch.nn.ModuleDict
    remembered: tuple[dict[str, torch.Tensor], ...] = ()  # by row: the teacher's states (length, width), float16

    def remember(self, progress: Progress) -> Insides:
        """The same with the teacher's states of every row in memory, where a quarter of what is free holds them:
        computed once instead of in every epoch. In batches that do not depend on the training's, so that a resumed one
        sees the same numbers."""
        import psutil
        import torch

        sites = self._sites(self.teacher, 1)
        lengths = self.teacher_rows.lengths
        room = psutil.virtual_memory().available // ROOM
        if 2 * sum(lengths) * hidden_width(self.teacher) * len(sites) > room:
            return self
        found: list[dict[str, torch.Tensor]] = [{} for _ in range(len(self.teacher_rows))]
        with torch.no_grad(), capture(sites) as told:
            for rows in progress.track(list(batches(self.teacher_rows, BATCH)), "the teacher's insides"):
                batch = self.teacher_rows.batch(rows)
                self.teacher(**{name: tensor.to(self.teacher.device) for name, tensor in batch.items()})
                for name, states in told.items():
                    half = states.to("cpu", torch.float16)
                    for place, row in enumerate(rows):
                        found[row][name] = half[place, : lengths[row]].clone()
        return replace(self, remembered=tuple(found))

    def watched(self) -> dict[str, Site]:
        """What to capture in the student's forward pass."""
        return self._sites(self.student, 0)

    @cached_property
    def _alike(self) -> list[bool]:
        return [
            ours == theirs for ours, theirs in zip(self.student_rows.lengths, self.teacher_rows.lengths, strict=True)
        ]

    def aligned(self, row: int) -> bool:
        return self._alike[row]

    def losses(self, rows: list[int], seen: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """(hidden, relation) losses of what the student's modules put out on these rows; 0 where unused."""
        import torch

        nothing = next(iter(seen.values())).sum() * 0.0
        places = [place for place, row in enumerate(rows) if self.aligned(row)]
        if not places:
            return nothing, nothing
        device = nothing.device
        chosen = [rows[p] for p in places]
        told = self._told(chosen, device)
        mask = self.teacher_rows.mask(chosen).to(device).long()
        mine = {name: states[places][:, : mask.shape[1]] for name, states in seen.items()}
        with torch.autocast(device.type, enabled=False):
            return self._hidden(mine, told, mask, nothing), self._relations(mine, told, mask, nothing)

    def _told(self, rows: list[int], device: torch.device) -> dict[str, torch.Tensor]:
        """The teacher's states of these rows, (rows, length, width) each."""
        import torch

        if self.remembered:
            names = self.remembered[rows[0]].keys()
            columns = {name: [self.remembered[row][name] for row in rows] for name in names}
            padded = {n: torch.nn.utils.rnn.pad_sequence(c, batch_first=True) for n, c in columns.items()}
            return {name: states.float().to(self.teacher.device) for name, states in padded.items()}
        with torch.no_grad(), capture(self._sites(self.teacher, 1)) as told:
            self.teacher(**{name: tensor.to(device) for name, tensor in self.teacher_rows.batch(rows).items()})
        return told

    def _hidden(
        self, mine: dict[str, torch.Tensor], told: dict[str, torch.Tensor], mask: torch.Tensor, nothing: torch.Tensor
    ) -> torch.Tensor:
        total = nothing
        for layer, _ in self.pairs:
            name = f"hidden{layer}"
            states = mine[name].float()
            projected = self.projections[name](states) if name in self.projections else states
            total = total + hidden_loss(projected, told[name], mask) / len(self.pairs)
        return total

    def _relations(
        self, mine: dict[str, torch.Tensor], told: dict[str, torch.Tensor], mask: torch.Tensor, nothing: torch.Tensor
    ) -> torch.Tensor:
        if self.relation_layers is None:
            return nothing
        total = nothing
        for ours, theirs in zip(self._three(self.student, mine), self._three(self.teacher, told), strict=True):
            heads = relation_head_count(self.relation_heads, ours.shape[-1], theirs.shape[-1])
            total = total + relation_loss(ours, theirs, mask, heads) / 3
        return total

    def _three(self, model: PreTrainedModel, states: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Queries, keys and values, whether one matrix makes them or three do."""
        family = backbone(model)[1]
        if family.fused:
            return states["query"].chunk(3, dim=-1)
        return states["query"], states["key"], states["value"]

    def _sites(self, model: PreTrainedModel, side: int) -> dict[str, Site]:
        """What to capture of the student (side 0) or the teacher (side 1), under the student's names."""
        calls = layer_calls(model)

        def site(call: Call) -> Site:
            return Site(model.get_submodule(call.path), call.turn, call.turns)

        found = {f"hidden{pair[0]}": site(calls[pair[side]]) for pair in self.pairs}
        if self.relation_layers is not None:
            layer = calls[self.relation_layers[side]]
            found |= {kind: site(part_call(model, layer, kind)) for kind in ("query", "key", "value")}
        return found


def make_projections(
    student: PreTrainedModel, teacher: PreTrainedModel, pairs: tuple[tuple[int, int], ...]
) -> torch.nn.ModuleDict:
    """A learned map to the teacher's width for each pair of layers; none where the widths are the same.

    Rows start orthonormal, so that lengths and angles are kept as far as the widths allow.
    """
    from torch import nn

    small, large = hidden_width(student), hidden_width(teacher)
    projections = nn.ModuleDict()
    if small != large:
        for layer, _ in pairs:
            projections[f"hidden{layer}"] = nn.Linear(small, large, bias=False)
            nn.init.orthogonal_(projections[f"hidden{layer}"].weight)  # type: ignore[arg-type]
    return projections.to(student.device)
