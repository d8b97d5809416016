"""From a recipe to a plan: steps with their cache keys, what they should cost, and what cannot work. Runs nothing."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from edgekit.artifact import ENCODER_KINDS, Artifact, Task, TaskKind, library_versions
from edgekit.chrf import has_chrf
from edgekit.data.load import Columns
from edgekit.data.splits import Splits, load_splits
from edgekit.data.table import Table
from edgekit.digest import digest_file, digest_json
from edgekit.errors import ModelError, PlanError, Problem, UsageError
from edgekit.forecast import cost_of, next_shape, shape_of
from edgekit.formats.marian_tokenizer import MODEL as MARIAN
from edgekit.model_config import positions, read_config
from edgekit.nn.architecture import misfits, picture_length
from edgekit.nn.head import classifies, other_head
from edgekit.optional import without_inexpressible
from edgekit.recipe import MODEL, Resolved, ResolvedStep, TaskSpec
from edgekit.sample_size import sample_notes
from edgekit.shapes import Cost, Shape
from edgekit.source import open_model
from edgekit.stages import STAGES
from edgekit.stages.base import Config, SplitName
from edgekit.store import Store
from edgekit.tasks.encoders import ENCODER_TASKS, columns_of, of_pictures, pairs_are_rows, score_of
from edgekit.tasks.entities import no_outside
from edgekit.tasks.text_classification import by_number, listed, number_notes
from edgekit.tokenizer_files import open_tokenizer
from edgekit.zero_shot import read_pairs

__all__ = [
    "Plan",
    "PlanStep",
    "formats_of",
    "longest_of",
    "make_plan",
    "numbered",
    "step_inputs",
    "step_key",
    "trained_labels",
    "with_task",
]

UNLIMITED = 1 << 30  # positions of a model that does not say how many
JUDGED: tuple[SplitName, ...] = ("validation", "test")  # splits whose labels answers are held against
TRAINED = ("finetune", "distill", "lm-finetune", "lm-distill")  # stages behind which a head is trained
UNTRAINED = ("student", "mlm-pretrain", "recase")  # and behind which it is not any more
SPARE = 1.2  # room asked for on disk beyond the predicted bytes


@dataclass(frozen=True)
class PlanStep:
    """One step with its key. `cached`: a sealed artifact with this key is in the store."""

    id: str
    stage: str
    config: Config
    source: str
    teachers: tuple[str, ...]
    splits: tuple[SplitName, ...]
    key: str
    cached: bool
    cost: Cost

    @property
    def parents(self) -> tuple[str, ...]:
        return (self.source, *self.teachers)


@dataclass(frozen=True)
class Plan:
    """All that a run needs, in the order it happens."""

    recipe: Resolved
    model: Artifact
    task: Task
    splits: Splits
    steps: tuple[PlanStep, ...]
    store: Store
    notes: tuple[str, ...]

    def table(self, name: SplitName) -> Table | None:
        return self.splits.tables.get(name)

    def lineage(self, step_id: str) -> tuple[str, ...]:
        """Ids of the steps behind `step_id`, in order, itself last."""
        steps = {step.id: step for step in self.steps}
        wanted = {step_id}
        for step in reversed(self.steps):
            if step.id in wanted:
                wanted.update(name for name in step.parents if name in steps)
        return tuple(step.id for step in self.steps if step.id in wanted)


def make_plan(recipe: Resolved, store: Store, out: Path | None = None) -> Plan:
    """Open the model and the data, compute the keys, and refuse what cannot work.

    Raises PlanError with every obstacle at once; DataError and ModelError for inputs that cannot be read.
    """
    must = any("validation" in STAGES[step.stage].needs for step in recipe.steps)
    splits = load_splits(recipe.data.sources(), _columns(recipe.task), must_validate=must)
    model = open_model(recipe.model)
    task = _task(recipe, model, splits)
    model = with_task(model, task)
    recipe, left_out = without_inexpressible(recipe, model, task)
    problems = _step_problems(recipe, splits, model, task)
    if problems:
        raise PlanError(f"recipe {recipe.name} cannot work", problems=tuple(problems))
    if recipe.workload.pairs:
        read_pairs(recipe.workload.pairs, 1)
    steps, problems = _plan_steps(recipe, model, task, splits, store)
    problems += _disk_problems(steps, store, out)
    if problems:
        raise PlanError(f"recipe {recipe.name} cannot work", problems=tuple(problems))
    few = sample_notes(recipe.rules, score_of(task.kind), len(splits.tables["test"]))
    notes = (*splits.notes, *_label_notes(task, splits), *left_out, *few)
    return Plan(recipe, model, task, splits, tuple(steps), store, notes)


def _columns(spec: TaskSpec) -> Columns:
    return columns_of(spec.kind, spec.text, spec.pair, spec.label)


def step_key(stage: str, config: Config, inputs: Mapping[str, str], task: Task | None) -> str:
    """sha256 of inputs, stage and its version, config and the files it names, task, and the versions of the libraries
    the stage names. Raises UsageError for a file that is not there."""
    spec = STAGES[stage]
    content: dict[str, JsonValue] = {
        "inputs": dict(inputs),
        "stage": stage,
        "stage_version": spec.version,
        "config": config.model_dump(mode="json"),
        "libraries": cast("JsonValue", library_versions(spec.libraries)),
        "task": task.model_dump(mode="json") if task else None,
    }
    if config.files:
        content["files"] = [_content_of(file) for file in config.files]
    return digest_json(content)


def _content_of(file: Path) -> str:
    try:
        return digest_file(file)
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror})") from None


def step_inputs(
    stage: str, source: str, teachers: Sequence[str], tables: Mapping[SplitName, Table]
) -> tuple[dict[str, str], tuple[SplitName, ...]]:
    """The digests of all that a step reads, and the names of the splits among it."""
    splits = tuple(name for name in STAGES[stage].reads if name in tables)
    inputs: dict[str, str] = {"source": source}
    inputs.update({name: tables[name].digest for name in splits})
    return inputs | numbered(teachers), splits


def numbered(teachers: Sequence[str]) -> dict[str, str]:
    """Keys of teachers by what an artifact calls them: teacher, teacher-2, teacher-3."""
    return {f"teacher-{place}" if place > 1 else "teacher": key for place, key in enumerate(teachers, 1)}


def _task(recipe: Resolved, model: Artifact, splits: Splits) -> Task:
    """Labels are the training data's where a step trains on them; else the model's own."""
    spec = recipe.task
    if spec.kind not in ENCODER_KINDS:
        return Task(kind=spec.kind, max_length=spec.max_length)
    own = model.task.labels if model.task and model.task.kind == spec.kind else ()
    trains = any(step.stage == "finetune" for step in recipe.steps)
    train = splits.tables.get("train")
    labels = trained_labels(spec.kind, own, train) if trains else own
    return Task(
        kind=spec.kind,
        labels=labels,
        max_length=longest_of(spec.kind, spec.max_length, model),
        pair=bool(_columns(spec).pair) and pairs_are_rows(spec.kind),
        segments=spec.segments,
        overlap=spec.overlap,
        longest_answer=spec.longest_answer,
    )


def longest_of(kind: TaskKind, wanted: int, model: Artifact) -> int:
    """The longest input, in tokens: what is wanted of texts, and of pictures what the model makes of each. Raises
    ModelError where the model reads no pictures."""
    if not of_pictures(kind):
        return wanted
    return model.task.max_length if model.task and model.task.kind == kind else picture_length(model.path)


def trained_labels(kind: TaskKind, own: tuple[str, ...], train: Table | None) -> tuple[str, ...]:
    """The training data's labels; in the model's order where it already has the same ones, so that its head is kept."""
    if train is None or not train.labels:
        return own
    found = ENCODER_TASKS[kind].labels(train)
    return own if set(own) == set(found) else found


def with_task(model: Artifact, task: Task) -> Artifact:
    """The model with the recipe's lengths and columns; an encoder with another task's head counts as one without, which
    is enough where the task takes none."""
    if model.task is None and (task.kind not in ENCODER_TASKS or ENCODER_TASKS[task.kind].head):
        return model
    if model.task is None or (model.task.kind != task.kind and {model.task.kind, task.kind} <= set(ENCODER_KINDS)):
        return _as(model, None if ENCODER_TASKS[task.kind].head else task)
    return _as(model, task.model_copy(update={"kind": model.task.kind, "labels": model.task.labels}))


def _as(model: Artifact, task: Task | None) -> Artifact:
    return Artifact(model.path, model.manifest.model_copy(update={"task": task}))


def formats_of(recipe: Resolved, model: Artifact) -> dict[str, str]:
    """Format of the recipe's model and of what each of its steps makes, by id."""
    formats: dict[str, str] = {MODEL: model.format}
    for step in recipe.steps:
        formats[step.id] = _gives(step, formats[step.source])
    return formats


def _step_problems(recipe: Resolved, splits: Splits, model: Artifact, task: Task) -> list[Problem]:
    """Formats that do not follow each other, data that are missing, a head that nobody trains."""
    problems = []
    formats = formats_of(recipe, model)
    trained = {MODEL: model.task is not None or recipe.task.kind not in ENCODER_KINDS}  # the others have no head
    for step in recipe.steps:
        stage = STAGES[step.stage]
        source = formats[step.source]
        where = f"step {step.id}"
        if not stage.serves(recipe.task.kind):
            hint = f"use {other}" if (other := stage.counterpart(recipe.task.kind)) else ""
            problems.append(Problem(where, f"{stage.name} is for {stage.task}, the task is {recipe.task.kind}", hint))
        if source not in stage.accepts:
            wanted = " or ".join(stage.accepts)
            hint = f"put it before the export of {step.source!r}" if source != "hf" else "export first"
            problems.append(Problem(where, f"{step.stage} works on {wanted}, and {step.source!r} is {source}", hint))
        for split in stage.needs:
            if split not in splits.tables:
                problems.append(Problem(where, f"{step.stage} needs {split} data", f"give --{split} FILE"))
        for teacher in step.teachers:
            if not trained.get(teacher):
                problems.append(Problem(where, f"the teacher {teacher!r} was never trained", "fine-tune it first"))
        if stage.exports and not trained[step.source]:
            problems.append(Problem(where, f"{step.source!r} has no trained head", "fine-tune or distill it first"))
        problems += _method_problems(step, source)
        inherits = trained[step.source] and step.stage not in UNTRAINED
        trained[step.id] = inherits or step.stage in TRAINED
    for name in recipe.exports:
        if formats[name] == "hf":
            problems.append(
                Problem(f"exports: {name}", "is not an exported file", "name a step of stage export or quantize")
            )
    problems += [*_head_problems(recipe, model), *_label_problems(recipe, task, splits)]
    problems += [*_misfits(recipe, model), *_tokenizer_problems(recipe.task.kind, model)]
    if not pairs_are_rows(recipe.task.kind) and not _columns(recipe.task).pair:
        hint = "name the column of the second text"
        problems.append(Problem("task.pair", f"{recipe.task.kind} is of two texts", hint))
    if recipe.workload.pairs and recipe.task.kind != "language-modeling":
        problems.append(Problem("workload.pairs", "are for language models", "leave it out"))
    if recipe.workload.length and of_pictures(recipe.task.kind):
        problems.append(Problem("workload.length", "every picture has the same number of tokens", "leave it out"))
    if any(rule.metric.startswith("chrf") for rule in recipe.rules) and not has_chrf():
        problems.append(Problem("gate", "a rule on chrF needs sacrebleu", "pip install 'edgekit[chrf]'"))
    if "test" not in splits.tables:
        problems.append(Problem("data", "no data to measure accuracy on", "give --test FILE or --validation FILE"))
    return problems


def _head_problems(recipe: Resolved, model: Artifact) -> list[Problem]:
    """A head that answers otherwise than a classifier's, where one is exported or taught from without a new one."""
    if model.format != "hf" or model.task is None or not classifies(model.task.kind):
        return []
    own = {MODEL}  # ids whose head is the model's
    for step in recipe.steps:
        stage = STAGES[step.stage]
        if (stage.exports and step.source in own) or own & set(step.teachers):
            problem = other_head(model.path)
            return [problem] if problem else []
        if step.source in own and step.stage not in (*TRAINED, *UNTRAINED):
            own.add(step.id)
    return []


def _label_problems(recipe: Resolved, task: Task, splits: Splits) -> list[Problem]:
    """Labels that a head which the recipe does not train has never heard of."""
    if not task.labels or any(step.stage == "finetune" for step in recipe.steps):
        return []  # no head yet, or the training data's, which the splits were checked against
    if task.kind == "token-classification" and (problem := no_outside(task.labels)):
        return [problem]
    problems = []
    for name in JUDGED:
        table = splits.tables.get(name)
        if table is None or by_number(table.classes, task):
            continue
        if unknown := table.classes - set(task.labels):
            what = f"{table.name} ({name}) has {len(unknown)} label(s) that the model's head does not know: "
            hint = "name its labels as the data do (id2label and label2id in its config.json), or fine-tune it on them"
            problems.append(Problem("data", f"{what}{listed(unknown)}; it knows {listed(task.labels)}", hint))
    return problems


def _label_notes(task: Task, splits: Splits) -> tuple[str, ...]:
    """That numbers are taken for the labels of a head that has no names for them, and that one label proves nothing."""
    tables = [splits.tables[name] for name in JUDGED if name in splits.tables]
    test = splits.tables["test"]
    alone = f"the test data have one label only, {listed(test.classes)}: whatever always answers it scores 100%"
    single = (f"{alone}, and a gate passes nothing",) if len(test.classes) == 1 and classifies(task.kind) else ()
    return (*number_notes(tables, task), *single)


def _misfits(recipe: Resolved, model: Artifact) -> list[Problem]:
    """Texts that the model does not take: longer than it has positions for, they would crash at the first long one."""
    kind = recipe.task.kind
    if kind in ENCODER_KINDS:
        longest, segments = recipe.task.max_length, recipe.task.segments
        return misfits(model.path, longest, segments=segments, pictures=of_pictures(kind))
    limit = positions(read_config(model.path)) or UNLIMITED
    if recipe.task.max_length <= limit:
        return []
    what = f"texts of {recipe.task.max_length} tokens, but the model has {limit} positions"
    return [Problem("task.max_length", what, f"use at most {limit}")]


def _tokenizer_problems(kind: TaskKind, model: Artifact) -> list[Problem]:
    """Why the tokenizer cannot be read; of a slow one's files also a package that is not installed."""
    if model.format != "hf" or of_pictures(kind) or (model.path / MARIAN).is_file():
        return []
    try:
        open_tokenizer(model.path)
    except ModelError as error:
        return [Problem("model", error.what, error.hint)]
    return []


def _gives(step: ResolvedStep, source: str) -> str:
    gives = STAGES[step.stage].gives
    if gives == "config":
        return str(step.config.model_dump()["format"])
    return source if gives == "source" else gives


def _method_problems(step: ResolvedStep, source: str) -> list[Problem]:
    if step.stage != "quantize" or source == "hf":
        return []
    from edgekit.stages.quantize import METHODS, Quantize

    assert isinstance(step.config, Quantize)
    known = METHODS.get(source, ())
    if step.config.method in known:
        return []
    hint = f"for {source}: {', '.join(known)}"
    return [Problem(f"step {step.id}", f"{step.config.method} is not a method for {source} files", hint)]


def _plan_steps(
    recipe: Resolved, model: Artifact, task: Task, splits: Splits, store: Store
) -> tuple[list[PlanStep], list[Problem]]:
    keys = {MODEL: model.key}
    shapes: dict[str, Shape] = {MODEL: shape_of(model, task)}
    steps: list[PlanStep] = []
    problems: list[Problem] = []
    for step in recipe.steps:
        inputs, used = step_inputs(
            step.stage, keys[step.source], [keys[teacher] for teacher in step.teachers], splits.tables
        )
        key = step_key(step.stage, step.config, inputs, task)
        shape, obstacles = next_shape(shapes[step.source], step.stage, step.config, task, model.path, splits.tables)
        problems += [Problem(f"step {step.id}", problem.what, problem.hint) for problem in obstacles]
        teachers = [shapes[teacher] for teacher in step.teachers]
        cost = cost_of(shapes[step.source], shape, step.stage, step.config, task, splits.tables, teachers)
        steps.append(
            PlanStep(step.id, step.stage, step.config, step.source, step.teachers, used, key, store.has(key), cost)
        )
        keys[step.id], shapes[step.id] = key, shape
    return steps, problems


def _disk_problems(steps: list[PlanStep], store: Store, out: Path | None) -> list[Problem]:
    needed = int(SPARE * sum(step.cost.bytes for step in steps if not step.cached))
    problems = []
    for folder in (store.root, *([out] if out else [])):
        existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        free = shutil.disk_usage(existing).free
        if needed > free:
            what = f"about {needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free"
            problems.append(Problem(str(folder), what, "free some space (edgekit store gc), or --store another folder"))
    return problems
