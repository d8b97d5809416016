"""Train a decoder language model: on texts (continued pre-training), or on the answers of conversations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from edgekit.artifact import Artifact, Facts, Task
from edgekit.nn.lm_adapters import UNMERGEABLE, Method, adapt, hooks_of, merge
from edgekit.nn.lm_data import Kind, Lesson, check_length, language_task, read_lesson
from edgekit.nn.lm_rows import Packing
from edgekit.nn.settings import Training
from edgekit.stages.base import Config, Context, Outcome, job_identity

if TYPE_CHECKING:
    import torch

    from edgekit.nn.train import Hooks, Job, Trained

__all__ = ["VERSION", "LmFinetune", "lm_finetune"]

VERSION = 1
RATES = {"full": (2e-4, 1e-3), "ia3": (2e-2, 1e-2)}  # at 384 wide, and the greatest
ADAPTER_RATE = (2e-3, 2e-3)  # low-rank adapters learn best at about ten times the rate of all weights


class LmFinetune(Training, Config):
    """Train on texts or conversations; the epoch of the least validation loss is kept."""

    epochs: int = Field(1, ge=1, description="passes over the training rows")
    batch_size: int = Field(8, ge=1, description="rows in a batch")
    learning_rate: float = Field(
        0.0, ge=0, description="peak learning rate; 0: by width and method (all weights: at 384 2e-4, at 2048 1.6e-5)"
    )
    data: Kind = Field("texts", description="texts, or chats: conversations, of which only the answers are learnt")
    packing: Packing = Field(
        "auto", description="stream: texts joined and cut; documents: side by side, each on its own; off: one a row"
    )
    method: Method = Field("full", description="what learns: all weights, or an adapter that is merged into them")
    rank: int = Field(16, ge=1, description="rank of lora, dora and (on average, at its end) adalora")
    alpha: float = Field(32.0, gt=0, description="scale of lora, dora and adalora: alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout before lora, dora and adalora")
    layer_decay: float = Field(1.0, gt=0, le=1, description="each layer's learning rate over that of the one above it")
    unfreeze: int = Field(0, ge=0, description="layers, from the last, that begin to learn with each epoch (0: all)")

    @model_validator(mode="after")
    def _fits_together(self) -> LmFinetune:
        if self.method in UNMERGEABLE:
            raise ValueError(f"{UNMERGEABLE[self.method]}, so no exported file would have it: use lora, dora or ia3")
        if self.data == "chats" and self.packing == "stream":
            raise ValueError("packing=stream lets conversations see each other: use documents or off")
        if self.unfreeze and self.method != "full":
            raise ValueError(f"unfreeze is for method=full: with {self.method} the layers stay frozen anyway")
        return self


def lm_finetune(source: Artifact, config: LmFinetune, out: Path, context: Context) -> Outcome:
    """Train the source on the `train` data; the epoch of the least loss on the `validation` data is kept.

    An adapter is merged: the result is a plain Transformers folder. A killed run goes on where it was.
    Raises DataError for data that do not fit, ModelError for a tokenizer without the chat template that chats need,
    StageError for a loss that is not finite, MissingExtraError for an adapter without peft.
    """
    from edgekit.nn.decoders import load_decoder
    from edgekit.nn.device import seeded, threads
    from edgekit.nn.load import save_model
    from edgekit.nn.train import steps_per_epoch, train

    task = language_task(context.task or source.task)
    lesson, exam = (
        read_lesson(source.path, context.split(split), task, config.data, config.packing)
        for split in ("train", "validation")
    )
    steps = steps_per_epoch(len(lesson.rows), config) * config.epochs
    with threads(context.threads), seeded(config.seed, context.device):
        model: Any = load_decoder(source.path, device=context.device)
        check_length(model, task)
        of, most = RATES.get(config.method, ADAPTER_RATE)
        settings = config.with_rate(model.config.get_text_config().hidden_size, of=of, most=most)
        if config.method != "full":
            rank, alpha, dropout = config.rank, config.alpha, config.dropout
            model = adapt(model, config.method, rank=rank, alpha=alpha, dropout=dropout, steps=steps)
        job = _job(source, config, context, task, model, lesson, exam)
        before = job.evaluate()
        trained = train(job, settings, scratch=context.scratch, progress=context.progress, device=context.device)
    facts = _facts(config, lesson, job, trained, before["perplexity"], settings.learning_rate)
    save_model(merge(model, config.method), out, tokenizer_from=source.path)
    return Outcome("hf", facts, task, {**trained.metrics, "validation_loss": trained.best.figures["loss"]})


def _job(
    source: Artifact, config: LmFinetune, context: Context, task: Task, model: Any, lesson: Lesson, exam: Lesson
) -> Job:
    from edgekit.nn.device import autocast
    from edgekit.nn.lm_train import depth_rates, evaluator
    from edgekit.nn.train import Job

    device = context.device

    def loss(rows: list[int]) -> torch.Tensor:
        with autocast(config.precision, device):
            found: torch.Tensor = model(**lesson.rows.batch(rows, device), use_cache=False).loss
        return found

    identity = job_identity(
        f"lm-finetune {VERSION}", config, task, [lesson.rows.digest, exam.rows.digest], source=source
    )
    return Job(
        model,
        lesson.rows.lengths,
        loss,
        evaluator(model, exam.rows, batch_size=config.batch_size, device=device),
        identity,
        weights=lesson.rows.weights,
        rates=depth_rates(model, config.layer_decay),
        hooks=_hooks(config, model),
    )


def _hooks(config: LmFinetune, model: Any) -> Hooks:
    from edgekit.nn.lm_train import Unfreezing

    return Unfreezing(model, config.unfreeze) if config.unfreeze else hooks_of(model, config.method)


def _facts(config: LmFinetune, lesson: Lesson, job: Job, trained: Trained, before: float, rate: float) -> Facts:
    after = trained.best.figures["perplexity"]
    best = f"best epoch {trained.best.epoch} of {len(trained.history)}"
    worse = (f"validation perplexity rose from {before:.3f} to {after:.3f}",) if after > before else ()
    learnt = sum(p.numel() for p in job.model.parameters() if p.requires_grad)
    return Facts(
        summary=f"{best}: validation perplexity {before:.3f} -> {after:.3f}",
        touched=("all weights",) if config.method == "full" else (f"linear layers, by {config.method}, merged",),
        warnings=(*trained.warnings, *lesson.warnings, *worse),
        numbers={
            "documents": lesson.documents,
            "rows": len(lesson.rows),
            "tokens": sum(lesson.rows.lengths),
            "counted_tokens": sum(lesson.rows.weights),
            "learnt_parameters": learnt,
            "learning_rate": rate,
            "steps": trained.steps,
            "best_epoch": trained.best.epoch,
            "epochs": len(trained.history),
            "perplexity_before": before,
        },
    )
