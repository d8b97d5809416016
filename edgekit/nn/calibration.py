"""Running a model over examples to see what flows through it: the examples, and the moments of a layer's input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit.artifact import Task
from edgekit.data.table import Table
from edgekit.nn.capture import held
from edgekit.progress import Progress, Silent
from edgekit.tasks.base import Encoded, Examples
from edgekit.tasks.encoders import examples_of, task_kind
from edgekit.tasks.text_classification import by_number

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["Calibration", "Loss", "Moments", "calibrate", "groups", "input_moments", "run", "taps", "unexercised"]


Loss = Callable[["torch.Tensor"], "torch.Tensor"]  # of what a model puts out


@dataclass(frozen=True)
class Calibration:
    """Examples; `labelled`: whether their labels are the model's, else its own predictions stand in."""

    examples: Examples
    labelled: bool
    batch_size: int

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], Loss]]:
        """Batches of model inputs (batch, ...), similar lengths together, each with its loss summed over them."""
        for units in self._batches():
            yield self.encoded.batch(self.examples.fed(units)), self._loss(units)

    def masks(self) -> Iterator[torch.Tensor]:
        """(batch, length) bool of each batch: its tokens that are no padding."""
        return (self.encoded.mask(self.examples.fed(units)) for units in self._batches())

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._batches())

    @property
    def encoded(self) -> Encoded:
        return self.examples.encoded

    def _batches(self) -> list[list[int]]:
        lengths = self.examples.lengths
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        return [order[at : at + self.batch_size] for at in range(0, len(order), self.batch_size)]

    def _loss(self, units: list[int]) -> Loss:
        return lambda output: self.examples.loss(output, units, own=not self.labelled, summed=True)


@dataclass
class Moments:
    """Mean (d,) and second moment E[x x^T] (d, d), float64, of a layer's input over real tokens of total `weight`."""

    mean: torch.Tensor
    second: torch.Tensor
    weight: float

    def add(self, x: torch.Tensor, weight: torch.Tensor) -> None:
        """Add tokens x (n, d) of `weight` (n, 1) to what are still sums."""
        import torch

        weighted = x * weight
        self.mean += weighted.sum(0, dtype=torch.float64)
        self.second += (x.T @ weighted).double()
        self.weight += float(weight.sum(dtype=torch.float64))

    @property
    def covariance(self) -> torch.Tensor:
        """E[(x - mean)(x - mean)^T], (d, d)."""
        return self.second - self.mean[:, None] * self.mean[None, :]


def calibrate(
    folder: Path,
    table: Table,
    task: Task,
    *,
    model_labels: Sequence[str],
    count: int,
    batch_size: int,
    seed: int,
) -> Calibration:
    """Draw `count` examples (all where there are fewer) and encode them with the folder's tokenizer.

    Labels are used where the table has them and the task's label names are the model's, in the model's order;
    a model that was trained on other labels is asked for its own predictions instead.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(table))[:count])
    drawn = table.take(int(row) for row in rows)
    same = tuple(task.labels) == tuple(model_labels) or not task_kind(task).head
    known = drawn.classes <= set(task.labels) or bool(by_number(drawn.classes, task))
    labelled = drawn.labels is not None and same and known
    return Calibration(examples_of(folder, drawn, task), labelled, batch_size)


@contextmanager
def taps(model: PreTrainedModel, paths: Sequence[str]) -> Iterator[dict[str, list[tuple[torch.Tensor, torch.Tensor]]]]:
    """First input and (first) output of the modules at `paths` in each of their calls, by path, refreshed by every
    forward pass. Layers that share their weights are called several times."""
    from torch.utils.hooks import RemovableHandle

    seen: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def keep(path: str) -> RemovableHandle:
        def hook(
            _: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor | tuple[torch.Tensor]
        ) -> None:
            seen.setdefault(path, []).append((inputs[0], output[0] if isinstance(output, tuple) else output))

        module: torch.nn.Module = model.get_submodule(path)
        return module.register_forward_hook(hook)

    def refresh(*_: object) -> None:
        seen.clear()

    with held([model.register_forward_pre_hook(refresh), *(keep(path) for path in paths)]):
        yield seen


def run(
    model: PreTrainedModel, calibration: Calibration, progress: Progress | None, label: str
) -> Iterator[torch.Tensor]:
    """Run the model over the examples, without gradients; yields each batch's mask (batch, length) of real tokens."""
    import torch

    batches = (progress or Silent()).track(calibration, label, len(calibration))
    for (inputs, _), mask in zip(batches, calibration.masks(), strict=True):
        with torch.inference_mode():
            model(**{name: tensor.to(model.device) for name, tensor in inputs.items()})
        yield mask.to(model.device)


def groups(model: PreTrainedModel, paths: Sequence[str], room: int = 256 * 2**20) -> Iterator[list[str]]:
    """`paths` in runs whose second moments together take at most `room` bytes (a run has at least one)."""
    group: list[str] = []
    used = 0
    for path in paths:
        need = 8 * model.get_submodule(path).in_features ** 2
        if group and used + need > room:
            yield group
            group, used = [], 0
        group.append(path)
        used += need
    if group:
        yield group


def input_moments(
    model: PreTrainedModel, paths: Sequence[str], calibration: Calibration, progress: Progress | None = None
) -> dict[str, Moments]:
    """Moments of the inputs of the modules at `paths`; padding is left out.

    Where a layer's output is added to the residual and normalized, each token counts by the inverse of the variance
    that the norm divides by: an error there is worth that much less. Else the few tokens with massive activations (Sun
    et al. 2024, "Massive Activations in Large Language Models") would own the moments. On MiniLM with ranks of 60% in
    the FFN this lowers the squared change of the logits by 40%.
    """
    import torch

    found: dict[str, Moments] = {}
    norms = {path: norm for path, norm in _norms_after(model).items() if path in paths}
    with taps(model, [*paths, *norms.values()]) as seen:
        for mask in run(model, calibration, progress, "activations"):
            for path in paths:
                for call, (inputs, _) in enumerate(seen[path]):
                    of_text = inputs.shape[:2] == mask.shape  # else a table that every text reads (DeBERTa's positions)
                    x = inputs[mask] if of_text else inputs.flatten(0, -2)
                    weight = torch.ones(len(x), 1, device=x.device)
                    if path in norms:
                        weight = 1 / seen[norms[path]][call][0][mask].var(-1, keepdim=True).clamp_min(1e-12)
                    if path not in found:
                        zero = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
                        found[path] = Moments(zero, torch.diag(zero), 0.0)
                    found[path].add(x, weight)
    for moments in found.values():
        moments.mean /= moments.weight
        moments.second /= moments.weight
    return found


def unexercised(model: PreTrainedModel, calibration: Calibration) -> list[str]:
    """Paths of the encoder's linear layers that no example exercises: they are not called, or read nothing but zeros
    (behind a ReLU that never opens, for one), so that data say nothing of them. Ends with the first batch in which all
    are."""
    from edgekit.nn.sparsity import encoder_linears

    left = list(encoder_linears(model))
    with taps(model, left) as seen:
        for _ in run(model, calibration, None, ""):
            left = [path for path in left if not any(bool(x.any()) for x, _ in seen.get(path, ()))]
            if not left:
                break
    return left


def _norms_after(model: PreTrainedModel) -> dict[str, str]:
    """Path of each layer that writes to the residual -> path of the norm that follows, where the family names it."""
    from edgekit.nn.load import backbone, encoder_layers
    from edgekit.nn.surgery import part_path

    pairs = (("attention_output", "attention_norm"), ("ffn_down", "ffn_norm"))
    known = [(writer, norm) for writer, norm in pairs if getattr(backbone(model)[1], norm)]
    layers = range(len(encoder_layers(model)))
    return {part_path(model, i, writer): part_path(model, i, norm) for i in layers for writer, norm in known}
