"""The settings of a training run."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field

from edgekit.artifact import Frozen
from edgekit.errors import StageError
from edgekit.nn.optimizer import Schedule
from edgekit.tasks.base import EncoderTask

__all__ = ["LEAST", "ClassifierTraining", "Training"]

LEAST = ("loss", "divergence")  # validation figures of which less is better
REFERENCE_WIDTH = 384  # of MiniLM, where the rates were found


class Training(Frozen):
    """The settings that every kind of training has."""

    epochs: int = Field(4, ge=1, description="passes over the training rows")
    learning_rate: float = Field(
        0.0, ge=0, description="peak learning rate; 0: by width, at 384 2e-4, at 768 7e-5 (distill: twice that)"
    )
    batch_size: int = Field(32, ge=1, description="rows in a batch")
    accumulate: int = Field(1, ge=1, description="batches whose gradients are added up before a step")
    warmup: float = Field(0.1, ge=0, le=1, description="share of the steps over which the learning rate rises")
    schedule: Schedule = Field("linear", description="how the learning rate goes on after the warm-up")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's weight decay (biases and norms have none)")
    clip: float = Field(1.0, ge=0, description="greatest norm of the gradient (0: any)")
    patience: int = Field(0, ge=0, description="stop after this many epochs without a better metric (0: never)")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="arithmetic of the training; auto takes bf16 where the device is fast at it"
    )
    seed: int = Field(0, ge=0, description="seed of what starts at random, the order of the rows, and dropout")

    def with_rate(self, width: int, *, of: float, most: float = 1e-3) -> Self:
        """These settings with a learning rate: the one that was given, or `of` at a hidden size of 384, scaled by
        width^-1.5 (wider models diverge sooner), at most `most`."""
        rate = self.learning_rate or min(most, of * (REFERENCE_WIDTH / width) ** 1.5)
        return self.model_copy(update={"learning_rate": rate})


class ClassifierTraining(Training):
    """The settings that the training of a classifier has besides. `figures`: those beside the task's metrics."""

    figures: ClassVar[tuple[str, ...]] = ("loss",)

    head_learning_rate_factor: float = Field(10.0, gt=0, description="a new head learns this many times faster")
    metric: str = Field(
        "main",
        description="validation metric that picks the epoch; main: accuracy, of a tagger of words entity_f1, of "
        "answers answer_f1, of similarities spearman",
    )
    dropout: float | None = Field(
        None, ge=0, lt=1, description="dropout of the model that learns; without it the model's own"
    )
    class_weights: bool = Field(False, description="weigh labels by how rare they are")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of a label's weight spread over all labels")
    qat: Literal["off", "int8"] = Field(
        "off", description="quantization-aware: learn with weights and inputs rounded as int8-dynamic rounds them"
    )
    qat_embeddings: Literal["keep", "int8", "int4"] = Field(
        "int8", description="with qat, how token embeddings are rounded; as quantize's embeddings"
    )

    def metric_of(self, task: EncoderTask) -> str:
        """The figure's name. Raises StageError for one that the task has not, and for settings that are of no use."""
        if task.label_kind == "score" and (self.class_weights or self.label_smoothing):
            raise StageError("scores are no classes", hint="leave out class_weights and label_smoothing")
        name = task.main if self.metric == "main" else self.metric
        if name not in (*task.metrics, *self.figures):
            known = ", ".join(("main", *task.metrics, *self.figures))
            raise StageError(f"no metric {self.metric!r} in {task.kind}", hint=f"use one of {known}")
        return name
