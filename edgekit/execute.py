"""Executing one step: from the store where it is there, else by calling the stage and sealing what it made."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from edgekit.artifact import Artifact, Manifest, Task, entries, library_versions, machine_name
from edgekit.data.table import Table
from edgekit.errors import StageError
from edgekit.plan import PlanStep
from edgekit.progress import Progress
from edgekit.stages import STAGES
from edgekit.stages.base import Context, SplitName
from edgekit.store import Store

__all__ = ["Done", "Environment", "execute"]


@dataclass(frozen=True)
class Environment:
    """Where and with what steps run."""

    store: Store
    progress: Progress
    device: str = "cpu"
    threads: int = 0


@dataclass(frozen=True)
class Done:
    """A finished step."""

    step: PlanStep
    artifact: Artifact
    cached: bool
    seconds: float


def execute(
    step: PlanStep,
    source: Artifact,
    teacher: Artifact | None,
    tables: Mapping[SplitName, Table],
    task: Task | None,
    environment: Environment,
) -> Done:
    """Run a step unless its artifact is there.

    Two processes with the same step: one works, the other waits and takes the result. A failure leaves nothing but what
    the stage keeps in its scratch folder to resume. Raises StageError for a stage that failed or changed nothing.
    """
    start = time.perf_counter()
    store, progress = environment.store, environment.progress
    found = store.get(step.key)
    if found is not None:
        store.touch(found)
        return Done(step, found, True, time.perf_counter() - start)
    if step.cached:
        progress.say(f"{step.id}: the artifact in the store is damaged; making it again")
    with store.lock(step.key, lambda: progress.say(f"{step.id}: another run is at this step; waiting for it")):
        found = store.get(step.key)
        if found is not None:
            return Done(step, found, True, time.perf_counter() - start)
        artifact = _make(step, source, teacher, tables, task, environment)
    return Done(step, artifact, False, time.perf_counter() - start)


def _make(
    step: PlanStep,
    source: Artifact,
    teacher: Artifact | None,
    tables: Mapping[SplitName, Table],
    task: Task | None,
    environment: Environment,
) -> Artifact:
    stage = STAGES[step.stage]
    start = time.perf_counter()
    with environment.store.filling(step.key) as out:
        context = Context(
            data={name: tables[name] for name in step.splits},
            teacher=teacher,
            task=task,
            scratch=environment.store.scratch(step.key),
            device=environment.device,
            threads=environment.threads,
            progress=environment.progress,
        )
        outcome = stage.function()(source, step.config, out, context)
        if not outcome.facts.changed:
            raise StageError(f"step {step.id} changed nothing: {outcome.facts.summary}", hint="leave the step out")
        manifest = Manifest(
            key=step.key,
            format=outcome.format,
            stage=step.stage,
            stage_version=stage.version,
            config=step.config.model_dump(mode="json"),
            parents=_parents(source, teacher, context),
            files=entries(out),
            libraries=library_versions(stage.libraries),
            facts=outcome.facts,
            task=outcome.task,
            metrics=outcome.metrics,
            seconds=round(time.perf_counter() - start, 3),
            machine=machine_name(),
        )
        return environment.store.commit(out, manifest)


def _parents(source: Artifact, teacher: Artifact | None, context: Context) -> dict[str, str]:
    parents = {"source": source.key}
    if teacher is not None:
        parents["teacher"] = teacher.key
    return parents | {name: table.digest for name, table in context.data.items()}
