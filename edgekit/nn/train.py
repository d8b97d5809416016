"""The one training loop: small, seeded, and resumable bit for bit after a kill."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit.artifact import Frozen
from edgekit.errors import StageError
from edgekit.nn.checkpoint import read_checkpoint, write_checkpoint
from edgekit.nn.device import seeded
from edgekit.nn.optimizer import make_optimizer, make_schedule
from edgekit.nn.processes import HelpedError, processes, shard
from edgekit.nn.settings import LEAST, Training

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from edgekit.progress import Progress

__all__ = ["Epoch", "Hooks", "Job", "Trained", "Training", "epoch_batches", "steps_per_epoch", "train"]

CHECKPOINT = "checkpoint.safetensors"
CHECKPOINT_SECONDS = 60.0  # inside an epoch; one is written at the end of every epoch too
POOL = 50  # batches that are sorted by length together: little padding, yet every epoch's batches differ


class Epoch(Frozen):
    """One epoch: mean training loss, and the validation's figures, "loss" among them."""

    epoch: int  # from 1
    loss: float
    figures: dict[str, float]

    def score(self, metric: str) -> tuple[float, float]:
        """Greater is better; among equals the lower validation loss."""
        figure = self.figures[metric]
        return (-figure if metric in LEAST else figure), -self.figures["loss"]


class Hooks:
    """What a job does besides the optimizer's steps. Here nothing; a job that needs it says what."""

    def epoch(self, number: int) -> None:
        """Called before an epoch's first step (after a resume: before the first one made), counted from 0."""

    def step(self, number: int) -> None:
        """Called after the optimizer's step, counted from 1, while the gradients are there."""

    def state(self) -> dict[str, torch.Tensor]:
        """What it must find again after a kill."""
        return {}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take up what `state` gave."""


@dataclass(frozen=True)
class Job:
    """What to train: the model's parameters that require a gradient when the job starts.

    `loss(rows)`: mean loss of these training rows; `evaluate()`: the validation's figures, "loss" among them.
    `lengths`: tokens of each training row; `weights`: how much each counts (where None, all the same). `metric`: the
    figure that picks the epoch. `rates`: parameters that learn so many times faster. `extra`: modules that learn along,
    `extra_rate` times faster, and are thrown away. `identity` names the job: another's checkpoint is not taken up.
    """

    model: PreTrainedModel
    lengths: Sequence[int]
    loss: Callable[[list[int]], torch.Tensor]
    evaluate: Callable[[], dict[str, float]]
    identity: str
    metric: str = "loss"
    weights: Sequence[int] | None = None
    rates: Mapping[str, float] = field(default_factory=dict)
    extra: torch.nn.Module | None = None
    extra_rate: float = 1.0
    hooks: Hooks = field(default_factory=Hooks)


@dataclass(frozen=True)
class Trained:
    """How it went. `steps`: optimizer steps made in all; `resumed_at`: those of an earlier, killed run."""

    history: tuple[Epoch, ...]
    best: Epoch
    steps: int
    resumed_at: int
    stopped_early: bool

    @property
    def metrics(self) -> dict[str, float]:
        """The best epoch's validation figures, as a stage reports them."""
        return {f"validation_{name}": value for name, value in self.best.figures.items() if name not in LEAST}

    @property
    def warnings(self) -> tuple[str, ...]:
        if not self.stopped_early:
            return ()
        ran, best = len(self.history), self.best.epoch
        return (f"stopped after epoch {ran}: no better epoch than {best}, and the patience was at its end",)

    def summary(self, metric: str) -> str:
        name = metric.replace("_", "-")
        return f"best epoch {self.best.epoch} of {len(self.history)}: validation {name} {self.best.figures[metric]:.3f}"


class State(Frozen):
    """What a checkpoint knows besides tensors. `loss_sum`, `weight` (of the rows seen): of the epoch under way."""

    identity: str
    step: int
    loss_sum: float
    weight: int
    history: tuple[Epoch, ...]


def train(job: Job, settings: Training, *, scratch: Path | None, progress: Progress, device: str = "cpu") -> Trained:
    """Train `job.model` in place; at the end it holds the weights of the best validation epoch.

    With a `scratch` folder the run is checkpointed there, and a second call goes on from the checkpoint; on the same
    device in fp32 with as many threads it ends with the same bits as an unbroken run.
    Where several processes were started (`processes`), each batch is shared out among them; all but the main one end
    with HelpedError. Raises StageError for a loss that is not finite, and where a checkpoint cannot be written.
    """
    with seeded(settings.seed, device):
        trained = _Run(job, settings, scratch, device).go(progress)
    if not processes().main:
        raise HelpedError
    return trained


def steps_per_epoch(rows: int, settings: Training) -> int:
    """Optimizer steps that an epoch of so many rows takes."""
    return math.ceil(math.ceil(rows / settings.batch_size) / settings.accumulate)


def epoch_batches(lengths: Sequence[int], size: int, seed: int, epoch: int) -> list[list[int]]:
    """Every row once, in shuffled batches of rows of like length; a pure function of its arguments."""
    rng = np.random.default_rng((seed, epoch))
    order, tokens = rng.permutation(len(lengths)), np.asarray(lengths)
    batches: list[list[int]] = []
    for start in range(0, len(order), size * POOL):
        rows = order[start : start + size * POOL]
        rows = rows[np.argsort(tokens[rows], kind="stable")]
        batches += [rows[i : i + size].tolist() for i in range(0, len(rows), size)]
    return [batches[i] for i in rng.permutation(len(batches))]


class _Run:
    """One call of `train`."""

    def __init__(self, job: Job, settings: Training, scratch: Path | None, device: str) -> None:
        self.job, self.settings, self.device = job, settings, device
        self.path = scratch / CHECKPOINT if scratch else None
        self.world = processes()
        self.parameters = {f"model.{n}": p for n, p in job.model.named_parameters() if p.requires_grad}
        rates = {f"model.{name}": rate for name, rate in job.rates.items()}
        if job.extra is not None:
            extra = {f"extra.{n}": p for n, p in job.extra.named_parameters()}
            self.parameters |= extra
            rates |= dict.fromkeys(extra, job.extra_rate)
        self.optimizer = make_optimizer(
            self.parameters,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            rates=rates,
        )
        self.per_epoch = steps_per_epoch(len(job.lengths), settings)
        self.total = self.per_epoch * settings.epochs
        self.step, self.loss_sum, self.weight = 0, 0.0, 0
        self.history: tuple[Epoch, ...] = ()
        self.best: dict[str, torch.Tensor] = {}  # the best epoch's weights, on the CPU
        self.saved_at = time.monotonic()

    def go(self, progress: Progress) -> Trained:
        resumed = self.restore()
        if resumed:
            progress.say(f"going on from step {resumed} of {self.total}")
        self.schedule = make_schedule(
            self.optimizer,
            self.settings.schedule,
            steps=self.total,
            warmup=self.settings.warmup,
            done=self.step,
        )
        if self.world.size > 1:
            progress.say(f"{self.world.size} processes share each batch")
        self.start_alike()
        self.job.model.train()
        left = self.total - self.step
        for group in progress.track(self.plan(), "training", total=left):
            self.advance(group)
            if self.step % self.per_epoch == 0:
                self.finish_epoch(progress)
            elif time.monotonic() - self.saved_at > CHECKPOINT_SECONDS:
                self.save()
        self.load({n: p for n, p in self.parameters.items() if n.startswith("model.")}, self.best)
        self.job.model.eval()
        best = max(self.history, key=self.score)
        return Trained(self.history, best, self.step, resumed, self.exhausted())

    def start_alike(self) -> None:
        """All processes have the main one's weights; each has dropout of its own."""
        import torch

        self.world.as_main([*(p.data for p in self.parameters.values()), *self.job.model.buffers()])
        if not self.world.main:
            torch.manual_seed(self.settings.seed + self.world.rank + self.step * self.world.size)

    def plan(self) -> Iterator[list[list[int]]]:
        """The batches of each step that is left. Looks at `step` and `history` as it goes."""
        size, many = self.settings.batch_size, self.settings.accumulate
        while self.step < self.total and not self.exhausted():
            epoch, begun = divmod(self.step, self.per_epoch)
            self.job.hooks.epoch(epoch)
            batches = epoch_batches(self.job.lengths, size, self.settings.seed, epoch)
            for start in range(begun * many, len(batches), many):
                yield batches[start : start + many]

    def advance(self, group: list[list[int]]) -> None:
        """One optimizer step; each batch counts by its rows' weights."""
        import torch

        total = sum(self.weigh(batch) for batch in group)
        loss_sum = 0.0
        for batch in group:
            if mine := shard(batch, self.world):
                loss, weight = self.job.loss(mine), self.weigh(mine)
                loss_sum += loss.item() * weight
                (loss * (weight / total)).backward()  # type: ignore[no-untyped-call]
        (loss_sum,) = self.world.added([loss_sum])
        self.check(loss_sum / total, "the loss")
        self.world.add_gradients(self.parameters.values())
        self.loss_sum += loss_sum
        self.weight += total
        if self.settings.clip:
            norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.clip)
            self.check(norm.item(), "the gradient")
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        self.job.hooks.step(self.step)
        self.optimizer.zero_grad()

    def weigh(self, batch: list[int]) -> int:
        return len(batch) if self.job.weights is None else sum(self.job.weights[row] for row in batch)

    def finish_epoch(self, progress: Progress) -> None:
        number = self.step // self.per_epoch
        figures = self.world.figures_of_main(self.job.evaluate())
        for name, value in figures.items():
            self.check(value, f"the validation {name}")
        epoch = Epoch(epoch=number, loss=self.loss_sum / self.weight, figures=figures)
        if not self.history or self.score(epoch) > max(map(self.score, self.history)):
            self.best = {
                n: p.detach().to("cpu", copy=True) for n, p in self.parameters.items() if n.startswith("model.")
            }
        self.history = (*self.history, epoch)
        self.loss_sum, self.weight = 0.0, 0
        metric = self.job.metric
        progress.say(
            f"epoch {number} of {self.settings.epochs}: loss {epoch.loss:.4f}, "
            f"validation {metric.replace('_', '-')} {figures[metric]:.4f}"
        )
        self.job.model.train()
        self.save()

    def score(self, epoch: Epoch) -> tuple[float, float]:
        return epoch.score(self.job.metric)

    def exhausted(self) -> bool:
        """Whether the patience is at its end."""
        if not self.settings.patience or not self.history:
            return False
        best = max(self.history, key=self.score)
        return len(self.history) - best.epoch >= self.settings.patience and self.step < self.total

    def check(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            rate = self.settings.learning_rate
            raise StageError(
                f"{what} is {value} at step {self.step + 1} (epoch {self.step // self.per_epoch + 1})",
                hint=f"lower learning_rate (now {rate:g}), clip the gradient, or use precision=fp32",
            )

    def save(self) -> None:
        import torch

        if self.path is None or not self.world.main:
            return
        tensors: dict[str, torch.Tensor] = {n: p.data for n, p in self.parameters.items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in moments.items()}
        tensors["rng.cpu"] = torch.get_rng_state()
        if self.device.startswith("cuda"):
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        tensors |= {f"hooks.{name}": tensor for name, tensor in self.job.hooks.state().items()}
        state = State(
            identity=self.job.identity, step=self.step, loss_sum=self.loss_sum, weight=self.weight, history=self.history
        )
        write_checkpoint(self.path, tensors, state)
        self.saved_at = time.monotonic()

    def restore(self) -> int:
        """Take up the checkpoint, if there is one of this very job; returns the steps it had made."""
        import torch

        found = read_checkpoint(self.path, State) if self.path else None
        if found is None or found[1].identity != self.job.identity:
            return 0
        tensors, state = found
        self.load(self.parameters, tensors)
        self.best = {n.removeprefix("best."): t for n, t in tensors.items() if n.startswith("best.")}
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, kind = name.split(".", 2)
                moments.setdefault(int(index), {})[kind] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        torch.set_rng_state(tensors["rng.cpu"])
        if self.device.startswith("cuda") and "rng.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)
        self.job.hooks.restore({n.removeprefix("hooks."): t for n, t in tensors.items() if n.startswith("hooks.")})
        self.step, self.loss_sum, self.weight, self.history = state.step, state.loss_sum, state.weight, state.history
        return self.step

    @staticmethod
    def load(parameters: dict[str, torch.nn.Parameter], tensors: dict[str, torch.Tensor]) -> None:
        import torch

        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(tensors[name])
