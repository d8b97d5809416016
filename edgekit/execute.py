"""Executing one step: from the store where it is there, else by calling the stage and sealing what it made."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from edgekit.artifact import Artifact, Manifest, Task, entries, library_versions, machine_name
from edgekit.data.table import Table
from edgekit.errors import StageError
from edgekit.nn.processes import HelpedError, Processes, processes
from edgekit.plan import PlanStep, numbered
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
    teachers: tuple[Artifact, ...],
    tables: Mapping[SplitName, Table],
    task: Task | None,
    environment: Environment,
) -> Done:
    """Run a step unless its artifact is there.

    Two runs with the same step: one works, the other waits and takes the result. Of several processes of one run
    (`nn/processes.py`) the main one does this, and the others help where the stage trains. A failure leaves nothing but
    what the stage keeps in its scratch folder to resume. Raises StageError for a stage that failed or changed nothing.
    """
    start = time.perf_counter()
    world, store, progress = processes(), environment.store, environment.progress
    if not world.main:
        artifact, made = _help(step, source, teachers, tables, task, environment, world)
        return Done(step, artifact, not made, time.perf_counter() - start)
    found = store.get(step.key)
    if found is not None:
        store.touch(found)
        world.told(False)
        world.wait()
        return Done(step, found, True, time.perf_counter() - start)
    if step.cached:
        progress.say(f"{step.id}: the artifact in the store is damaged; making it again")
    with store.lock(step.key, lambda: progress.say(f"{step.id}: another run is at this step; waiting for it")):
        found = store.get(step.key)
        world.told(found is None)
        artifact = found or _make(step, source, teachers, tables, task, environment)
    world.wait()
    return Done(step, artifact, found is not None, time.perf_counter() - start)


def _help(
    step: PlanStep,
    source: Artifact,
    teachers: tuple[Artifact, ...],
    tables: Mapping[SplitName, Table],
    task: Task | None,
    environment: Environment,
    world: Processes,
) -> tuple[Artifact, bool]:
    """Train along with the main process, or wait for it. Returns what it made, and whether it had to.

    Raises StageError where that is not to be found.
    """
    stage, store = STAGES[step.stage], environment.store
    wanted = world.told(False)
    if wanted and stage.trains:
        context = _context(step, teachers, tables, task, environment)
        with TemporaryDirectory() as out, suppress(HelpedError):
            stage.function()(source, step.config, Path(out), context)
    world.wait()
    artifact = store.get(step.key)
    if artifact is None:
        what = f"process {world.rank} does not find what the main process made of step {step.id}"
        raise StageError(what, hint="all of them must see the same --store folder")
    return artifact, wanted


def _make(
    step: PlanStep,
    source: Artifact,
    teachers: tuple[Artifact, ...],
    tables: Mapping[SplitName, Table],
    task: Task | None,
    environment: Environment,
) -> Artifact:
    stage = STAGES[step.stage]
    start = time.perf_counter()
    with environment.store.filling(step.key) as out:
        context = _context(step, teachers, tables, task, environment)
        outcome = stage.function()(source, step.config, out, context)
        if not outcome.facts.changed and not outcome.facts.dropped:
            raise StageError(f"step {step.id} changed nothing: {outcome.facts.summary}", hint="leave the step out")
        manifest = Manifest(
            key=step.key,
            format=outcome.format,
            stage=step.stage,
            stage_version=stage.version,
            config=step.config.model_dump(mode="json"),
            parents=_parents(source, teachers, context),
            files=entries(out),
            libraries=library_versions(stage.libraries),
            facts=outcome.facts,
            task=outcome.task,
            metrics=outcome.metrics,
            seconds=round(time.perf_counter() - start, 3),
            machine=machine_name(),
        )
        return environment.store.commit(out, manifest)


def _context(
    step: PlanStep,
    teachers: tuple[Artifact, ...],
    tables: Mapping[SplitName, Table],
    task: Task | None,
    environment: Environment,
) -> Context:
    return Context(
        data={name: tables[name] for name in step.splits},
        teachers=teachers,
        task=task,
        scratch=environment.store.scratch(step.key),
        device=environment.device,
        threads=environment.threads,
        progress=environment.progress,
    )


def _parents(source: Artifact, teachers: tuple[Artifact, ...], context: Context) -> dict[str, str]:
    parents = {"source": source.key}
    parents |= numbered([teacher.key for teacher in teachers])
    return parents | {name: table.digest for name, table in context.data.items()}
