"""Whether a plan can be measured at a target: asked before anything is trained."""

from __future__ import annotations

from dataclasses import replace

from edgekit.errors import PlanError, Problem
from edgekit.optional import without
from edgekit.plan import Plan, formats_of
from edgekit.targets import Target, find_target, load_targets, missing

__all__ = ["for_target", "ready_target"]


def ready_target(name: str) -> Target:
    """The target of this name. Raises UsageError for an unknown one, PlanError where this machine lacks what it needs;
    a device itself is not asked."""
    target = find_target(name)
    lacking = missing(load_targets()[name])
    if lacking:
        raise PlanError(f"target {name} is not ready", problems=lacking)
    return target


def for_target(plan: Plan, target: Target) -> Plan:
    """The plan without the files that the target has no runtime for (and the steps that make them), with a note.

    Raises PlanError where that leaves no export, or takes the baseline.
    """
    recipe, formats = plan.recipe, formats_of(plan.recipe, plan.model)
    runtimes = target.executes(plan.task.kind)
    runs = " and ".join(name for name in runtimes if name != "hf") or "no such model"
    why = f"target {target.name} runs {runs} files only"
    gone = {step.id: why for step in recipe.steps if formats[step.id] not in (*runtimes, "hf")}
    problems = []
    if formats[recipe.baseline] not in runtimes:
        what = f"{recipe.baseline!r} is a {formats[recipe.baseline]} file"
        problems.append(Problem("baseline", what, f"name a step that makes a file of {runs}"))
    if set(recipe.exports) <= set(gone):
        what = f"none can run there: {', '.join(f'{name} ({formats[name]})' for name in recipe.exports)}"
        problems.append(Problem("exports", what, f"name steps that make files of {runs}"))
    if problems:
        raise PlanError(f"recipe {recipe.name} cannot be measured: {why}", problems=tuple(problems))
    left, notes = without(recipe, gone)
    steps = tuple(step for step in plan.steps if step.id not in gone)
    return replace(plan, recipe=left, steps=steps, notes=(*plan.notes, *notes))
