"""Train a student to answer as its teacher does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field, model_validator

from edgekit.artifact import Artifact, Facts, Skipped, Task
from edgekit.data.augment import SHARE, Draw, altered
from edgekit.data.table import Table
from edgekit.errors import DataError, StageError
from edgekit.nn.evaluate import balanced_weights, data_warnings, logits_of, truncated_rows, validation_figures
from edgekit.nn.head import head_labels, output_of, prepare_head
from edgekit.nn.losses import LayerMap
from edgekit.nn.settings import ClassifierTraining
from edgekit.stages.base import Config, Context, Outcome, job_identity
from edgekit.tasks.base import Encoded, Examples, output_of_all
from edgekit.tasks.encoders import examples_of, task_kind

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from edgekit.nn.teacher import Insides
    from edgekit.nn.train import Epoch, Trained

    Load = Callable[[], PreTrainedModel]

__all__ = ["VERSION", "Distill", "distill"]

VERSION = 8
STUDENT_RATE = 4e-4  # at 384 wide; one that lost little learns better at 1e-4


class Distill(ClassifierTraining, Config):
    """Train on a teacher's answers (soft targets), hidden states and attention relations, with or without labels."""

    figures: ClassVar[tuple[str, ...]] = ("loss", "divergence")

    epochs: int = Field(6, ge=1, description="passes over the training rows")
    metric: str = Field(
        "divergence",
        description="validation figure that picks the epoch: divergence (from the teacher's answers), loss, main or "
        "another of the task",
    )
    temperature: float = Field(3.0, gt=0, description="softens both models' answers before they are compared")
    alpha_soft: float = Field(1.0, ge=0, description="weight of the teacher's answers")
    alpha_hard: float = Field(0.0, ge=0, description="weight of the labels (0: none are needed)")
    altered_copies: int = Field(
        0, ge=0, description="copies of each training text with words dropped and swapped, for the teacher to answer"
    )
    altered_share: float = Field(SHARE, ge=0, le=1, description="share of a copy's words that become other words")
    altered_draw: Draw = Field(
        "by_use",
        description="which: by_use, as often as the training texts have them; by_word, each word of the training and "
        "unlabeled texts alike, capitalized ones for capitalized ones: rare names, for taggers",
    )
    hidden: float = Field(0.0, ge=0, description="weight of the hidden states' relative error")
    layer_map: LayerMap = Field("uniform", description="teacher layers that the student's layers follow")
    relations: float = Field(0.0, ge=0, description="weight of the attention relations of one layer (MiniLMv2)")
    relation_layer: int = Field(
        0, ge=0, description="teacher layer, from 1, whose relations are followed (0: the last)"
    )
    relation_heads: int = Field(0, ge=0, description="relation heads (0: as many as fit both, 32 wide or more)")

    @model_validator(mode="after")
    def _something_to_learn(self) -> Distill:
        if not any((self.alpha_soft, self.alpha_hard, self.hidden, self.relations)):
            raise ValueError("alpha_soft, alpha_hard, hidden and relations are all 0: there is nothing to learn")
        return self

    @property
    def looks_inside(self) -> bool:
        return self.hidden > 0 or self.relations > 0


@dataclass(frozen=True)
class Lesson:
    """What to learn from: training rows, then unlabeled ones."""

    table: Table
    examples: Examples
    answers: NDArray[np.float32]  # the teacher's, as `Examples.read` gives them
    exam: Examples  # the validation data, and the teacher's answers to it
    exam_answers: NDArray[np.float32]
    metric: str  # the task's main one
    teacher_score: float


def distill(source: Artifact, config: Distill, out: Path, context: Context) -> Outcome:
    """Train the source, as a student, on `train` and any `unlabeled` texts to answer as `context.teachers` do: as the
    mean of their answers; hidden states and relations are the first one's.

    Student and teachers each use their own tokenizer. The best epoch on the `validation` data is kept; where none is
    better than the student was before, it goes on as it came, and the step is dropped (unless only its insides were
    taught). The teachers' answers stay beside `context.scratch` for the next student. A killed run goes on from its
    checkpoint.
    Raises StageError where there is no teacher, teachers know other labels than the first, their answers have no mean,
    or the loss is not finite; DataError for data that do not fit.
    """
    from edgekit.nn.architecture import check_task
    from edgekit.nn.device import seeded, threads
    from edgekit.nn.dropout import set_dropout
    from edgekit.nn.load import is_trained, load_classifier, read_edits, save_model
    from edgekit.nn.qat import rounded
    from edgekit.nn.train import Epoch, Job, train

    if context.teacher is None:
        raise StageError("distilling needs a teacher", hint="name a fine-tuned model with --teacher")
    teacher = context.teacher
    task = _task(source, teacher, context)
    picked_by = config.metric_of(task_kind(task))
    for one in context.teachers:
        if not is_trained(one.path, task.kind):
            raise StageError(f"the teacher {one.path} has no trained head", hint="fine-tune it first")
    _check_alike(context.teachers, task)
    for reader in (source, *context.teachers):
        check_task(reader.path, task)
    load = cache(partial(load_classifier, teacher.path, kind=task.kind, device=context.device))
    with threads(context.threads):
        lesson = _lesson(source, config, context, task, load)
        model = load() if config.looks_inside else None
    # Seeded only here: whether the answers were on disk already must not change what is drawn for the student.
    with threads(context.threads), seeded(config.seed, context.device):
        student = load_classifier(source.path, task.labels, kind=task.kind, device=context.device)
        set_dropout(student, config.dropout)
        insides = _insides(config, context, student, model, lesson, teacher, task) if model is not None else None
        exam = _exam(student, lesson, config.temperature, context.device)
        job = Job(
            student,
            lesson.examples.lengths,
            _loss(config, context.device, student, lesson, insides),
            exam,
            _identity(source, config, context, task),
            metric=picked_by,
            rates=dict.fromkeys(prepare_head(student, source.path, task.labels), config.head_learning_rate_factor),
            extra=insides.projections if insides else None,
            extra_rate=config.head_learning_rate_factor,
        )
        settings = config.with_rate(student.config.hidden_size, of=STUDENT_RATE)
        start = {name: parameter.detach().cpu().clone() for name, parameter in student.named_parameters()}
        with rounded(student, config):
            before = Epoch(epoch=0, loss=0.0, figures=exam())
            trained = train(job, settings, scratch=context.scratch, progress=context.progress, device=context.device)
        answers = config.alpha_soft or config.alpha_hard  # else the states alone were taught, and the answers may wait
        dropped = bool(answers) and before.score(picked_by) >= trained.best.score(picked_by)
        if dropped:
            student.load_state_dict(start, strict=False)
    facts = _facts(source, config, context, task, lesson, insides, trained, student)
    if dropped:
        facts = _dropped(facts, picked_by, before, trained)
    save_model(student, out, tokenizer_from=source.path, edits=read_edits(source.path))
    metrics = replace(trained, best=before).metrics if dropped else trained.metrics
    return Outcome("hf", facts, task, metrics)


def _dropped(facts: Facts, metric: str, before: Epoch, trained: Trained) -> Facts:
    """Of a training that did not help."""
    name, then, best = metric.replace("_", "-"), before.figures[metric], trained.best.figures[metric]
    said = f"dropped: validation {name} was {then:.4f} before, and {best:.4f} after the best epoch"
    hint = f"{said}; the student goes on as it came. A lower learning_rate, less dropout or more texts may help"
    return facts.model_copy(
        update={
            "summary": said,
            "changed": False,
            "dropped": True,
            "touched": (),
            "warnings": (*facts.warnings, hint),
            "numbers": {**facts.numbers, "best_epoch": 0},
        }
    )


def _task(source: Artifact, teacher: Artifact, context: Context) -> Task:
    """The recipe's or the student's task, with the teacher's labels in the order of the teacher's head."""
    task = context.task or source.task or teacher.task
    if task is None:
        raise StageError("this stage needs a task", hint="give a max_length, and the data's columns")
    if not task_kind(task).head:
        return task
    return task.model_copy(update={"labels": _labels(teacher)})


def _labels(teacher: Artifact) -> tuple[str, ...]:
    return teacher.task.labels if teacher.task else head_labels(teacher.path)


def _check_alike(teachers: tuple[Artifact, ...], task: Task) -> None:
    """Raises StageError for answers that cannot be averaged."""
    if len(teachers) > 1 and not task_kind(task).head:
        raise StageError("embeddings of several teachers lie in spaces of their own", hint="name one teacher")
    for teacher in teachers[1:]:
        if _labels(teacher) != task.labels:
            what = f"the teacher {teacher.path} knows other labels than {teachers[0].path}, or in another order"
            raise StageError(what, hint="fine-tune all of them on the same training data")


def _lesson(source: Artifact, config: Distill, context: Context, task: Task, load: Load) -> Lesson:
    """`load`: the first teacher's model."""
    train, validation, kind = context.split("train"), context.split("validation"), task_kind(task)
    if config.altered_copies and kind.pictures:
        raise StageError("altered_copies are of texts, and the task is of pictures", hint="leave altered_copies at 0")
    more = context.data.get("unlabeled")
    parts = [train] if more is None else [train, more]
    if config.altered_copies:
        share, draw = config.altered_share, config.altered_draw
        parts.append(altered(train, config.altered_copies, config.seed, share=share, draw=draw, more=more))
    if config.alpha_hard and train.labels is None:
        raise DataError(f"{train.name} has no labels", hint="name the label column, or set alpha_hard to 0")
    table, exam = _joined(parts), examples_of(source.path, validation, task)
    told, *answers = _answers([validation, *parts], context, task, load)
    return Lesson(
        table,
        examples_of(source.path, table, task),
        np.concatenate(answers),
        exam,
        told,
        kind.main,
        exam.judge(told).metrics.get(kind.main, 0.0),
    )


def _answers(tables: list[Table], context: Context, task: Task, load: Load) -> list[NDArray[np.float32]]:
    """To each table, the mean of all teachers'; a place that one of them was not asked about has none. `load`: the
    first teacher's model; of the others one at a time is in memory."""
    from edgekit.nn.load import load_classifier
    from edgekit.nn.processes import processes
    from edgekit.nn.teacher import teacher_logits

    folder, device, progress = context.scratch.parent if context.scratch else None, context.device, context.progress
    found = []
    for number, teacher in enumerate(context.teachers):
        own = cache(partial(load_classifier, teacher.path, kind=task.kind, device=device)) if number else load
        with processes().main_first():
            found.append(
                [teacher_logits(teacher, own, t, task, cache=folder, device=device, progress=progress) for t in tables]
            )
    return [np.asarray(np.mean(each, axis=0), dtype=np.float32) for each in zip(*found, strict=True)]


def _exam(student: PreTrainedModel, lesson: Lesson, temperature: float, device: str) -> Callable[[], dict[str, float]]:
    """The student's validation figures, and its divergence from the teacher's answers there.

    That varies less from epoch to epoch than a share of right answers does, and says more where rows are few.
    """
    exam = lesson.exam

    def figures() -> dict[str, float]:
        logits = logits_of(student, exam.encoded, device=device)
        units = range(len(exam.lengths))
        apart = exam.follow(output_of_all(logits, exam), units, lesson.exam_answers, temperature)
        return {**validation_figures(logits, exam), "divergence": float(apart)}

    return figures


def _joined(parts: list[Table]) -> Table:
    """One table of all rows; only those of the first part have labels, if any. Raises DataError where some parts have
    pairs of texts and some have not."""
    if len({part.pairs is None for part in parts}) > 1:
        raise DataError("training and unlabeled data must both be single texts, or both be pairs")
    pairs = tuple(pair for part in parts for pair in part.pairs or ())
    texts, first = tuple(text for part in parts for text in part.texts), parts[0]
    labels = (*first.labels, *[""] * (len(texts) - len(first))) if first.labels else None
    pictures = {name: where for part in parts for name, where in part.pictures.items()}
    return replace(first, texts=texts, pairs=pairs or None, labels=labels, pictures=pictures)


def _insides(
    config: Distill,
    context: Context,
    student: PreTrainedModel,
    model: PreTrainedModel,
    lesson: Lesson,
    teacher: Artifact,
    task: Task,
) -> Insides:
    from edgekit.nn.layers import depth
    from edgekit.nn.losses import layer_pairs
    from edgekit.nn.teacher import Insides, make_projections

    ours, theirs = depth(student), depth(model)
    if config.relation_layer > theirs:
        raise StageError(f"relation_layer is {config.relation_layer}, but the teacher has {theirs} layers")
    pairs = layer_pairs(ours, theirs, config.layer_map) if config.hidden else ()
    layers = (ours - 1, (config.relation_layer or theirs) - 1) if config.relations else None
    projections = make_projections(student, model, pairs)
    rows = _beside(lesson.examples, examples_of(teacher.path, lesson.table, task), len(lesson.table))
    insides = Insides(student, model, lesson.examples.encoded, rows, pairs, layers, config.relation_heads, projections)
    return insides.remember(context.progress)


def _beside(ours: Examples, theirs: Examples, units: int) -> Encoded:
    """The teacher's row for each of the student's; none where a text is cut into several rows, and elsewhere than the
    student's."""
    lengths, others = ours.encoded.lengths, theirs.encoded.lengths
    found: dict[int, int] = {}
    for unit in range(units):
        own, rows = ours.fed([unit]), theirs.fed([unit])
        cut_alike = [lengths[row] for row in own] == [others[row] for row in rows]
        if cut_alike or len(own) == len(rows) == 1:
            found |= zip(own, rows, strict=True)
    return theirs.encoded.pick([found.get(row) for row in range(len(ours.encoded))])


def _loss(
    config: Distill, device: str, student: PreTrainedModel, lesson: Lesson, insides: Insides | None
) -> Callable[[list[int]], torch.Tensor]:
    """The weighted sum of the losses that the config asks for, for a batch of rows."""
    import torch

    from edgekit.nn.capture import capture
    from edgekit.nn.device import autocast

    examples = lesson.examples
    weighted = config.class_weights and config.alpha_hard
    balance = balanced_weights(examples.classes, lesson.answers.shape[1]) if weighted else None
    weights = None if balance is None else torch.from_numpy(balance).to(device)
    watched = insides.watched() if insides else {}

    def loss(units: list[int]) -> torch.Tensor:
        rows = examples.fed(units)
        batch = {name: tensor.to(device) for name, tensor in examples.encoded.batch(rows).items()}
        with capture(watched) as seen, autocast(config.precision, device):
            output = output_of(student, batch)
            hidden, relations = insides.losses(rows, seen) if insides else (0.0, 0.0)
        total: torch.Tensor = config.hidden * hidden + config.relations * relations + output.sum() * 0.0
        if config.alpha_soft:
            total = total + config.alpha_soft * examples.follow(output, units, lesson.answers, config.temperature)
        if config.alpha_hard:
            hard = examples.loss(output, units, weights=weights, smoothing=config.label_smoothing)
            total = total + config.alpha_hard * hard
        return total

    return loss


def _identity(source: Artifact, config: Distill, context: Context, task: Task) -> str:
    return job_identity(
        f"distill {VERSION}",
        config,
        task,
        {name: table.digest for name, table in context.data.items()},
        source=source,
        **{f"teacher-{place}": teacher for place, teacher in enumerate(context.teachers, 1)},
    )


def _facts(
    source: Artifact,
    config: Distill,
    context: Context,
    task: Task,
    lesson: Lesson,
    insides: Insides | None,
    trained: Trained,
    student: PreTrainedModel,
) -> Facts:
    train = context.split("train")
    warnings = data_warnings(
        train,
        context.split("validation"),
        accuracy=trained.best.figures.get("accuracy"),
        rows=len(lesson.table),
        truncated=truncated_rows(source.path, lesson.table, task, lesson.examples.encoded),
        max_length=task.max_length,
        weighted=config.class_weights or not config.alpha_hard,
    )
    skipped, who = [], "teacher" if len(context.teachers) == 1 else f"{len(context.teachers)} teachers"
    numbers: dict[str, float | int | str | bool] = {
        "rows": len(lesson.table),
        "unlabeled_rows": len(context.data["unlabeled"]) if "unlabeled" in context.data else 0,
        "altered_rows": config.altered_copies * len(train),
        "labels": len(task.labels),
        "parameters": sum(p.numel() for p in student.parameters()),
        "steps": trained.steps,
        "best_epoch": trained.best.epoch,
        "epochs": len(trained.history),
        "teachers": len(context.teachers),
        f"teacher_{lesson.metric}": lesson.teacher_score,
    }
    if insides:
        apart = sum(not insides.aligned(row) for row in range(len(insides.student_rows)))
        numbers["misaligned_rows"] = apart
        if apart:
            reason = "student and teacher cut them into different numbers of tokens: no hidden or relation loss there"
            skipped.append(Skipped(name=f"{apart} rows", reason=reason))
    return Facts(
        summary=f"{trained.summary(lesson.metric)} ({who} {lesson.teacher_score:.3f})",
        touched=("all weights",),
        skipped=tuple(skipped),
        warnings=(*trained.warnings, *warnings),
        numbers=numbers,
    )
