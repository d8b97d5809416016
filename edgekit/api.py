"""The Python API under the command line: everything that `edgekit` does, as functions.

from pathlib import Path
from edgekit.api import run

report = run("text-classifier", {"model": "./my-bert", "train": "train.csv", "test": "test.csv"}, Path("build"))
assert report.gate is None or report.gate.passed
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgekit.artifact import Artifact, Task, TaskKind
from edgekit.data.table import Table
from edgekit.errors import ModelError, UsageError
from edgekit.execute import Done, Environment, execute
from edgekit.library import find_recipe
from edgekit.nn.head import classifies, other_head
from edgekit.nn.processes import device_here, processes
from edgekit.plan import Plan, PlanStep, longest_of, make_plan, step_inputs, step_key, trained_labels, with_task
from edgekit.progress import Progress, Silent
from edgekit.recipe import Scalar, load_recipe, resolve
from edgekit.report.schema import Report
from edgekit.rules import Rule, check_names
from edgekit.runtimes.base import Workload
from edgekit.shapes import Cost
from edgekit.source import open_model
from edgekit.stages import STAGES
from edgekit.stages.base import Config, SplitName
from edgekit.store import Store, default_root
from edgekit.targets import find_target
from edgekit.tasks.text_classification import number_notes

__all__ = ["bench", "choose_device", "plan", "run", "run_stage"]


def plan(
    recipe: str,
    params: Mapping[str, Scalar],
    *,
    overrides: Sequence[str] = (),
    store: Path | None = None,
    out: Path | None = None,
) -> Plan:
    """What `run` would do: steps, keys, cache hits, predicted costs. Runs nothing.

    `recipe`: the name of one that ships, or a YAML file. `overrides`: `STEP.FIELD=VALUE` texts.
    Raises RecipeError, DataError, ModelError or PlanError with all problems at once.
    """
    resolved = resolve(load_recipe(find_recipe(recipe)), params, overrides)
    return make_plan(resolved, Store(store or default_root()), out)


def run(
    recipe: str,
    params: Mapping[str, Scalar],
    out: Path,
    *,
    overrides: Sequence[str] = (),
    store: Path | None = None,
    device: str = "auto",
    threads: int = 0,
    target: str = "cpu",
    progress: Progress | None = None,
) -> Report:
    """Run a recipe: train, compress, export, measure, judge. Deployables and reports are written to `out`.

    Steps that are in the store are not run again. `target`: where the files are measured; formats that it does not run
    are left out, with a note. Raises what `plan` raises before anything runs, also where the target lacks something or
    does not run the baseline, StageError for a step that failed, DeviceError for a runtime or a target that failed.
    """
    from edgekit.run import check_out, run_plan
    from edgekit.runnable import for_target, ready_target

    check_out(out)
    where = ready_target(target)
    made = for_target(plan(recipe, params, overrides=overrides, store=store, out=out), where)
    environment = Environment(made.store, _heard(progress), choose_device(device), threads)
    return run_plan(made, out, environment, where)


def run_stage(
    stage: str,
    config: Config,
    model: str,
    out: Path,
    *,
    tables: Mapping[SplitName, Table] | None = None,
    teachers: Sequence[str] = (),
    task: Task | None = None,
    store: Path | None = None,
    device: str = "auto",
    threads: int = 0,
    progress: Progress | None = None,
) -> Done:
    """One stage alone: `model` (folder, hub id, `pkg:`) in, a sealed folder `out` out (new or empty).

    Raises as `run` does.
    """
    found = Store(store or default_root())
    given = tables or {}
    source = open_model(model)
    masters = tuple(open_model(teacher) for teacher in teachers)
    _check_stage(stage, source, len(masters), given)
    _check_heads((source,) if STAGES[stage].exports else masters)
    task = _stage_task(stage, source, task, given)
    if source.from_outside and task is not None:
        source = with_task(source, task)
    inputs, splits = step_inputs(stage, source.key, [master.key for master in masters], given)
    key = step_key(stage, config, inputs, task)
    step = PlanStep(stage, stage, config, "", (), splits, key, found.has(key), Cost(0, 0, 0.0))
    environment = Environment(found, _heard(progress), choose_device(device), threads)
    done = execute(step, source, masters, given, task, environment)
    if processes().main:
        found.export(done.artifact, out)
    return done


def bench(
    paths: Sequence[Path],
    table: Table,
    workload: Workload,
    *,
    baseline: Path | None = None,
    target: str = "cpu",
    rules: Sequence[Rule] = (),
    out: Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Exported folders side by side, without a recipe: latency, and where the table has labels accuracy, against
    `baseline` (default: the first folder), judged by `rules`.

    Raises UsageError for two folders of one name, an unknown target or an `out` that cannot be written, RecipeError for
    rules about other files, StoreError for a folder that edgekit did not write, DeviceError for a runtime or a target
    that failed.
    """
    from edgekit.measuring import Subject, make_report, write_report
    from edgekit.run import check_out

    start = time.perf_counter()
    first, *others = dict.fromkeys(path.resolve() for path in (baseline or paths[0], *paths))
    names = [folder.name for folder in others]
    names.insert(0, first.name if first.name not in names else "baseline")
    if len(set(names)) < len(names):
        raise UsageError(f"folders of one name: {', '.join(names)}", hint="rename one: figures are told apart by name")
    if out is not None:
        check_out(out)
    check_names(rules, names[1:])
    folders = dict(zip(names, (first, *others), strict=True))
    subjects = {name: Subject(Artifact.open(folder), str(folder)) for name, folder in folders.items()}
    task = subjects[names[0]].artifact.task
    report, measured = make_report(
        "bench",
        subjects,
        names[0],
        table,
        workload,
        rules,
        progress=progress or Silent(),
        start=start,
        target=find_target(target),
        notes=number_notes((table,), task) if task else (),
    )
    if out is not None:
        write_report(report, measured, out)
    return report


def _heard(progress: Progress | None) -> Progress:
    """Of several processes the main one says how far they are."""
    return progress if progress is not None and processes().main else Silent()


def choose_device(name: str) -> str:
    """`auto` is CUDA where torch has it, else the CPU. Raises UsageError for a device that is not there."""
    if name == "cpu":
        return name
    import torch

    if name == "auto":
        return device_here() if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and torch.cuda.is_available():
        return name
    raise UsageError(f"no device {name!r} on this machine", hint="use auto or cpu; see: edgekit doctor")


def _check_stage(stage: str, source: Artifact, teachers: int, tables: Mapping[SplitName, Table]) -> None:
    spec = STAGES[stage]
    kind: TaskKind = source.task.kind if source.task else "text-classification"
    if not spec.serves(kind):
        hint = f"use edgekit {other}" if (other := spec.counterpart(kind)) else ""
        raise UsageError(f"{stage} is for {spec.task}; {source.path} is for {kind}", hint=hint)
    if source.format not in spec.accepts:
        wanted = " or ".join(spec.accepts)
        raise UsageError(f"{stage} works on {wanted}; {source.path} is {source.format}")
    missing = [name for name in spec.needs if name not in tables]
    if missing:
        raise UsageError(f"{stage} needs {' and '.join(missing)} data", hint=f"give --{missing[0]} FILE")
    if spec.teachers and not teachers:
        raise UsageError(f"{stage} needs a teacher", hint="give --teacher MODEL")
    if teachers > spec.teachers:
        raise UsageError(f"{stage} takes {'one teacher' if spec.teachers else 'no teacher'}, not {teachers}")


def _check_heads(models: Sequence[Artifact]) -> None:
    """Raises ModelError for one whose head is used, and answers otherwise than a classifier's."""
    for model in models:
        used = model.format == "hf" and model.task is not None and classifies(model.task.kind)
        if used and (problem := other_head(model.path)):
            raise ModelError(f"{model.path}: {problem.what}", hint=problem.hint)


def _stage_task(stage: str, source: Artifact, task: Task | None, tables: Mapping[SplitName, Table]) -> Task | None:
    """The task that the options describe, with the labels of the training data (finetune) or of the model; an artifact
    of ours brings its own, unless nothing was trained for that and the options name another."""
    ours = source.task is not None and not source.from_outside and stage != "finetune"
    same = source.task is not None and task is not None and source.task.kind == task.kind
    if task is None or (ours and (same or (source.task is not None and source.task.labels))):
        return source.task
    own = source.task.labels if source.task and same else ()
    labels = trained_labels(task.kind, own, tables.get("train")) if stage == "finetune" else own
    return task.model_copy(update={"labels": labels, "max_length": longest_of(task.kind, task.max_length, source)})
