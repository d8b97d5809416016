"""A run: execute the plan's steps, place the files that ship, measure and judge them, and write it all down."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from edgekit.answers import reference_metrics
from edgekit.artifact import Artifact
from edgekit.data.table import Table
from edgekit.errors import EdgekitError, UsageError
from edgekit.execute import Done, Environment, execute
from edgekit.measuring import Subject, make_report, write_report
from edgekit.nn.processes import processes
from edgekit.plan import Plan
from edgekit.recipe import MODEL
from edgekit.report.schema import Report, StepEntry, load_report
from edgekit.targets import Target

__all__ = ["check_out", "run_plan"]


def run_plan(plan: Plan, out: Path, environment: Environment, target: Target) -> Report:
    """Run all steps, copy the deployables to `out`, measure them at the target, judge, and write the reports.

    Of several processes all but the main one wait for its report. Raises what the stages and runtimes raise; finished
    steps stay in the store.
    """
    start = time.perf_counter()
    done, world = _execute_all(plan, environment), processes()
    if not world.main:
        world.wait()
        return load_report(out / "report.json")
    recipe = plan.recipe
    test = plan.splits.tables["test"]
    steps = tuple(_step_entry(plan, item, test, environment) for item in done.values())
    subjects = {
        name: Subject(done[name].artifact, _place(done[name].artifact, out / name), plan.lineage(name))
        for name in dict.fromkeys((recipe.baseline, *recipe.exports))
    }
    report, bench = make_report(
        recipe.name,
        subjects,
        recipe.baseline,
        test,
        recipe.workload,
        recipe.rules,
        progress=environment.progress,
        start=start,
        target=target,
        exports=recipe.exports,
        steps=steps,
        notes=plan.notes,
        cache=plan.store.predictions,
    )
    write_report(report, bench, out)
    world.wait()
    return report


def check_out(out: Path) -> None:
    """Create the output folder. Raises UsageError where it cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(f"cannot write to {out}: {error.strerror}", hint="choose another folder with --out") from None


def _execute_all(plan: Plan, environment: Environment) -> dict[str, Done]:
    artifacts: dict[str, Artifact] = {MODEL: plan.model}
    done: dict[str, Done] = {}
    progress = environment.progress
    for number, step in enumerate(plan.steps, 1):
        progress.head(f"step {number}/{len(plan.steps)} {step.id} ({step.stage})")
        teachers = tuple(artifacts[teacher] for teacher in step.teachers)
        try:
            item = execute(step, artifacts[step.source], teachers, plan.splits.tables, plan.task, environment)
        except EdgekitError as error:
            error.what = f"step {step.id}: {error.what}"
            raise
        facts = item.artifact.manifest.facts
        progress.say(f"{facts.summary} ({'from the store' if item.cached else f'{item.seconds:.1f} s'})")
        for warning in facts.warnings:
            progress.say(f"note: {warning}")
        artifacts[step.id], done[step.id] = item.artifact, item
    return done


def _step_entry(plan: Plan, item: Done, test: Table, environment: Environment) -> StepEntry:
    """The step for the report; test metrics of a model that has no file to run yet are torch's."""
    artifact, manifest = item.artifact, item.artifact.manifest
    measured: dict[str, float | None] = {**manifest.metrics}
    if artifact.format == "hf" and manifest.task is not None:
        measured |= reference_metrics(
            artifact,
            test,
            plan.recipe.workload,
            threads=environment.threads,
            device=environment.device,
            cache=plan.store.predictions,
        )
    return StepEntry(
        id=item.step.id,
        stage=item.step.stage,
        artifact=artifact.key,
        cached=item.cached,
        seconds=manifest.seconds,
        size_bytes=artifact.size_bytes,
        facts=manifest.facts,
        metrics=measured,
        parents=item.step.parents,
    )


def _place(artifact: Artifact, target: Path) -> str:
    """Copy a deployable folder to its place under the output folder, replacing an older one by a rename."""
    fresh = target.with_name(f".{target.name}-{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        shutil.copytree(artifact.path, fresh)
        shutil.rmtree(target, ignore_errors=True)
        fresh.replace(target)
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror or error}", hint="free some space") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return target.name
