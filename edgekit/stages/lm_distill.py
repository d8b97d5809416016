"""Train a decoder language model to say what its teacher says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from edgekit.artifact import Artifact, Facts, Task
from edgekit.errors import StageError
from edgekit.nn.lm_data import Kind, check_length, language_task, read_lesson
from edgekit.nn.lm_rows import Packing, Rows, joined
from edgekit.nn.losses import LayerMap
from edgekit.nn.settings import Training
from edgekit.stages.base import Config, Context, Outcome, SplitName, job_identity

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from edgekit.nn.lm_teacher import Layers, Teacher
    from edgekit.nn.train import Job, Trained

__all__ = ["VERSION", "LmDistill", "lm_distill"]

VERSION = 1
RATE = 4e-4  # at 384 wide
PROJECTION_RATE = 10.0  # maps between widths start at random: they learn this many times faster


class LmDistill(Training, Config):
    """Learn a teacher's next-token distributions; the epoch of the least validation KL divergence is kept."""

    epochs: int = Field(1, ge=1, description="passes over the training rows")
    batch_size: int = Field(8, ge=1, description="rows in a batch")
    learning_rate: float = Field(0.0, ge=0, description="peak learning rate; 0: by width (at 384 4e-4, at 2048 3e-5)")
    data: Kind = Field("texts", description="texts, or chats: conversations, of which only the answers are learnt")
    packing: Packing = Field(
        "auto", description="stream: texts joined and cut; documents: side by side, each on its own; off: one a row"
    )
    learn_from: Literal["texts", "generations"] = Field(
        "texts", description="the data's texts, or what the teacher itself writes after their beginnings"
    )
    prompt: int = Field(16, ge=1, description="tokens of each row that the teacher goes on from, for generations")
    temperature: float = Field(1.0, gt=0, description="softens both models' distributions before they are compared")
    top_k: int = Field(
        0, ge=0, description="likeliest tokens of the teacher that are kept on disk, asked once (0: ask at every step)"
    )
    alpha_soft: float = Field(1.0, ge=0, description="weight of the teacher's distributions (KL divergence)")
    alpha_hard: float = Field(0.0, ge=0, description="weight of the texts' own next tokens")
    hidden: float = Field(0.0, ge=0, description="weight of the hidden states' relative error")
    layer_map: LayerMap = Field("uniform", description="teacher layers that the student's layers follow")

    @model_validator(mode="after")
    def _fits_together(self) -> LmDistill:
        if not any((self.alpha_soft, self.alpha_hard, self.hidden)):
            raise ValueError("alpha_soft, alpha_hard and hidden are all 0: there is nothing to learn")
        if self.hidden and self.top_k:
            raise ValueError("hidden needs the teacher at every step, so top_k saves nothing: set one of them to 0")
        if self.data == "chats" and self.packing == "stream":
            raise ValueError("packing=stream lets conversations see each other: use documents or off")
        if self.data == "chats" and self.learn_from == "generations":
            raise ValueError("generations go on from texts: use data=texts")
        return self


@dataclass(frozen=True)
class Lesson:
    """Rows to learn from and rows to be measured on, and the teacher for both."""

    rows: Rows
    exam: Rows
    teacher: Teacher
    examiner: Teacher
    warnings: tuple[str, ...]
    layers: Layers | None = None


def lm_distill(source: Artifact, config: LmDistill, out: Path, context: Context) -> Outcome:
    """Train the source, as a student, on `train` and any `unlabeled` texts to say what `context.teacher` says.

    The epoch of the least KL divergence on the `validation` data is kept. What is computed of the teacher once (top-k
    answers, its own texts) stays beside `context.scratch` for the next student. A killed run goes on where it was.
    Raises StageError where there is no teacher, its vocabulary does not hold the student's, or the loss is not finite;
    DataError for data that do not fit.
    """
    from edgekit.nn.decoders import load_decoder
    from edgekit.nn.device import seeded, threads
    from edgekit.nn.load import save_model
    from edgekit.nn.train import train

    if context.teacher is None:
        raise StageError("distilling needs a teacher", hint="name a larger model with --teacher")
    teacher, task = context.teacher, language_task(context.task or source.task)
    with threads(context.threads), seeded(config.seed, context.device):
        student = load_decoder(source.path, device=context.device)
        check_length(student, task)
        lesson = _lesson(source, teacher, config, context, task, student)
        job = _job(source, teacher, config, context, task, lesson, student)
        before = job.evaluate()
        settings = config.with_rate(student.config.get_text_config().hidden_size, of=RATE)
        trained = train(job, settings, scratch=context.scratch, progress=context.progress, device=context.device)
    facts = _facts(config, lesson, trained, before, settings.learning_rate)
    save_model(student, out, tokenizer_from=source.path)
    return Outcome("hf", facts, task, trained.metrics)


def _lesson(
    source: Artifact, teacher: Artifact, config: LmDistill, context: Context, task: Task, student: PreTrainedModel
) -> Lesson:
    from edgekit.nn.decoders import load_decoder
    from edgekit.nn.lm_asking import Asking, generated, keep_answers
    from edgekit.nn.lm_teacher import Live, pair_layers
    from edgekit.nn.lm_vocabulary import shared_vocabulary
    from edgekit.nn.processes import processes

    load = cache(lambda: load_decoder(teacher.path, device=context.device))
    folder = context.scratch.parent if context.scratch else None
    asking = Asking(load, teacher.key, folder, config.batch_size, context.device, context.progress)
    shared = shared_vocabulary(source.path, teacher.path)
    names: tuple[SplitName, ...] = ("train", "unlabeled") if "unlabeled" in context.data else ("train",)
    lessons = [read_lesson(source.path, context.split(n), task, config.data, config.packing) for n in names]
    exam = read_lesson(source.path, context.split("validation"), task, config.data, config.packing).rows
    rows = joined([lesson.rows for lesson in lessons])
    warnings = tuple(warning for lesson in lessons for warning in lesson.warnings)
    if config.learn_from == "generations":
        if not shared.same:
            what = "the teacher's own texts may hold tokens that the student has not"
            raise StageError(what, hint="use learn_from=texts")
        with processes().main_first():
            rows = generated(asking, rows, prompt=config.prompt, length=task.max_length, seed=config.seed)
    if config.top_k:
        with processes().main_first():
            kept = keep_answers(asking, rows, shared, count=config.top_k, temperature=config.temperature)
            examiner = keep_answers(asking, exam, shared, count=config.top_k, temperature=1.0)
        return Lesson(rows, exam, kept, examiner, warnings)
    model = load()
    check_length(model, task)
    layers = pair_layers(student, model, config.layer_map) if config.hidden else None
    return Lesson(rows, exam, Live(model, rows, shared, layers), Live(model, exam, shared), warnings, layers)


def _job(
    source: Artifact,
    teacher: Artifact,
    config: LmDistill,
    context: Context,
    task: Task,
    lesson: Lesson,
    student: PreTrainedModel,
) -> Job:
    from edgekit.nn.train import Job

    identity = job_identity(
        f"lm-distill {VERSION}", config, task, [lesson.rows.digest, lesson.exam.digest], source=source, teacher=teacher
    )
    return Job(
        student,
        lesson.rows.lengths,
        _loss(config, context.device, student, lesson),
        _evaluator(config, context.device, student, lesson),
        identity,
        weights=lesson.rows.weights,
        extra=lesson.layers.projections if lesson.layers else None,
        extra_rate=PROJECTION_RATE,
    )


def _loss(
    config: LmDistill, device: str, student: PreTrainedModel, lesson: Lesson
) -> Callable[[list[int]], torch.Tensor]:
    """The weighted sum of the losses that the config asks for, for a batch of rows."""
    from edgekit.nn.capture import capture
    from edgekit.nn.device import autocast
    from edgekit.nn.lm_train import token_losses

    watched = lesson.layers.student if lesson.layers else {}

    def loss(rows: list[int]) -> torch.Tensor:
        batch = lesson.rows.batch(rows, device)
        labels = batch.pop("labels")
        with capture(watched) as seen, autocast(config.precision, device):
            logits = student(**batch, use_cache=False).logits
            soft, hidden = lesson.teacher.losses(rows, logits, config.temperature, seen)
        total = config.alpha_soft * soft + config.hidden * hidden
        return total + config.alpha_hard * token_losses(logits, labels).mean() if config.alpha_hard else total

    return loss


def _evaluator(
    config: LmDistill, device: str, student: PreTrainedModel, lesson: Lesson
) -> Callable[[], dict[str, float]]:
    """A function that measures the student as it is then, in fp32: `kld` (nats a token, also as the `loss` that picks
    the epoch) and perplexity."""
    from edgekit.nn.lm_train import evaluating, perplexity, token_losses

    exam = lesson.exam

    def evaluate() -> dict[str, float]:
        divergence = surprise = 0.0
        with evaluating(student):
            for rows in exam.batches(config.batch_size):
                batch = exam.batch(rows, device)
                labels = batch.pop("labels")
                logits = student(**batch, use_cache=False).logits
                soft, _ = lesson.examiner.losses(rows, logits, 1.0, {})
                divergence += soft.item() * sum(exam.weights[row] for row in rows)
                surprise += token_losses(logits, labels).double().sum().item()
        tokens = sum(exam.weights)
        kld = divergence / tokens
        return {"loss": kld, "kld": kld, "perplexity": perplexity(surprise / tokens)}

    return evaluate


def _facts(config: LmDistill, lesson: Lesson, trained: Trained, before: dict[str, float], rate: float) -> Facts:
    after = trained.best.figures
    best = f"best epoch {trained.best.epoch} of {len(trained.history)}"
    worse = ("the KL divergence to the teacher did not fall",) if after["kld"] >= before["kld"] else ()
    return Facts(
        summary=f"{best}: validation KL divergence to the teacher {before['kld']:.4f} -> {after['kld']:.4f}",
        touched=("all weights",),
        warnings=(*trained.warnings, *lesson.warnings, *worse),
        numbers={
            "rows": len(lesson.rows),
            "tokens": sum(lesson.rows.lengths),
            "counted_tokens": sum(lesson.rows.weights),
            "learning_rate": rate,
            "steps": trained.steps,
            "best_epoch": trained.best.epoch,
            "epochs": len(trained.history),
            "kld_before": before["kld"],
            "perplexity_before": before["perplexity"],
            "kld_is_a_lower_bound": bool(config.top_k),
        },
    )
