"""Fine-tune an encoder and its head on labelled data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.artifact import Artifact, Facts, Task
from edgekit.data.table import Table
from edgekit.errors import DataError, StageError
from edgekit.nn.evaluate import balanced_weights, data_warnings, evaluator, truncated_rows
from edgekit.nn.head import head_labels, output_of, prepare_head
from edgekit.nn.settings import ClassifierTraining
from edgekit.stages.base import Config, Context, Outcome, job_identity
from edgekit.tasks.base import Examples
from edgekit.tasks.encoders import examples_of, task_kind

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from edgekit.nn.train import Job, Trained

__all__ = ["VERSION", "Finetune", "finetune"]

VERSION = 3
TEACHER_RATE = 2e-4  # at 384 wide


class Finetune(ClassifierTraining, Config):
    """Train on labelled rows; the epoch that is best on the validation data is kept."""


def finetune(source: Artifact, config: Finetune, out: Path, context: Context) -> Outcome:
    """Train the source's encoder and its head on the `train` data, and keep the best epoch on the `validation` data.

    A head whose labels are those of the data is kept; else a new one is made. A killed run goes on where it was.
    Raises DataError for data that do not fit, StageError for a loss that is not finite.
    """
    from edgekit.nn.architecture import check_task
    from edgekit.nn.device import seeded, threads
    from edgekit.nn.dropout import set_dropout
    from edgekit.nn.load import load_classifier, read_edits, save_model
    from edgekit.nn.qat import rounded
    from edgekit.nn.train import train

    task = _task(source, context)
    check_task(source.path, task)
    metric = config.metric_of(task_kind(task))
    examples = examples_of(source.path, context.split("train"), task)
    with threads(context.threads), seeded(config.seed, context.device):
        model = load_classifier(source.path, task.labels, kind=task.kind, device=context.device)
        set_dropout(model, config.dropout)
        job = _job(source, config, context, task, model, examples, metric)
        settings = config.with_rate(model.config.hidden_size, of=TEACHER_RATE)
        with rounded(model, config):
            trained = train(job, settings, scratch=context.scratch, progress=context.progress, device=context.device)
    facts = _facts(source, config, context, task, examples, job, trained)
    save_model(model, out, tokenizer_from=source.path, edits=read_edits(source.path))
    return Outcome("hf", facts, task, trained.metrics)


def _task(source: Artifact, context: Context) -> Task:
    """The task with its labels: the recipe's, or those of the data (in the order of a head that has the same ones)."""
    task = context.task or source.task
    if task is None:
        raise StageError("this stage needs a task", hint="give a max_length, and the data's columns")
    if task.labels:
        return task
    labels = task_kind(task).labels(context.split("train"))
    own = head_labels(source.path)
    return task.model_copy(update={"labels": own if set(own) == set(labels) else labels})


def _job(
    source: Artifact,
    config: Finetune,
    context: Context,
    task: Task,
    model: PreTrainedModel,
    examples: Examples,
    metric: str,
) -> Job:
    import torch

    from edgekit.nn.device import autocast
    from edgekit.nn.train import Job

    data, validation, device = context.split("train"), context.split("validation"), context.device
    if data.labels is None:
        raise DataError(f"{data.name} has no labels", hint="name the label column")
    balance = balanced_weights(examples.classes, len(task.labels)) if config.class_weights else None
    weights = None if balance is None else torch.from_numpy(balance).to(device)
    evaluate = evaluator(model, examples_of(source.path, validation, task), device)

    def loss(units: list[int]) -> torch.Tensor:
        batch = {name: tensor.to(device) for name, tensor in examples.encoded.batch(examples.fed(units)).items()}
        with autocast(config.precision, device):
            output = output_of(model, batch)
        return examples.loss(output, units, weights=weights, smoothing=config.label_smoothing)

    identity = job_identity(f"finetune {VERSION}", config, task, [data.digest, validation.digest], source=source)
    rates = dict.fromkeys(prepare_head(model, source.path, task.labels), config.head_learning_rate_factor)
    return Job(model, examples.lengths, loss, evaluate, identity, metric=metric, rates=rates)


def _facts(
    source: Artifact, config: Finetune, context: Context, task: Task, examples: Examples, job: Job, trained: Trained
) -> Facts:
    data: Table = context.split("train")
    warnings = data_warnings(
        data,
        context.split("validation"),
        accuracy=trained.best.figures.get("accuracy"),
        rows=len(data),
        truncated=truncated_rows(source.path, data, task, examples.encoded),
        max_length=task.max_length,
        weighted=config.class_weights,
    )
    return Facts(
        summary=trained.summary(job.metric),
        touched=("all weights; the head is new",) if job.rates else ("all weights",),
        warnings=(*trained.warnings, *warnings),
        numbers={
            "rows": len(data),
            "labels": len(task.labels),
            "parameters": sum(p.numel() for p in job.model.parameters()),
            "steps": trained.steps,
            "best_epoch": trained.best.epoch,
            "epochs": len(trained.history),
            "new_head": bool(job.rates),
        },
    )
