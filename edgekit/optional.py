"""Leaving out of a recipe what cannot be: optional exports that the model's architecture rules out from the start."""

from __future__ import annotations

from edgekit.artifact import Artifact, Task
from edgekit.forecast import next_shape, shape_of
from edgekit.recipe import Resolved, ResolvedStep
from edgekit.rules import Rule
from edgekit.stages import STAGES

__all__ = ["without", "without_inexpressible"]


def without_inexpressible(recipe: Resolved, model: Artifact, task: Task) -> tuple[Resolved, tuple[str, ...]]:
    """The recipe without optional exports (and what is made of them) that could not even hold the unchanged model.

    Returns the notes that say so. Obstacles that the recipe's own steps make are not looked at here: they are refused.
    """
    gone: dict[str, str] = {}  # id -> why
    for step in recipe.steps:
        if lost := next((name for name in (step.source, *step.teachers) if name in gone), None):
            gone[step.id] = gone[lost]
        elif step.optional and STAGES[step.stage].exports and model.format == "hf":
            _, obstacles = next_shape(shape_of(model, task), step.stage, step.config, task, model.path, {})
            if obstacles:
                gone[step.id] = obstacles[0].what
    return without(recipe, gone)


def without(recipe: Resolved, gone: dict[str, str]) -> tuple[Resolved, tuple[str, ...]]:
    """The recipe without these steps (id -> why) and what its rules say of them, and the notes that say so."""
    if not gone:
        return recipe, ()
    changes = {
        "steps": tuple(step for step in recipe.steps if step.id not in gone),
        "exports": tuple(name for name in recipe.exports if name not in gone),
        "rules": tuple(left for rule in recipe.rules if (left := _narrowed(rule, gone)) is not None),
    }
    return recipe.model_copy(update=changes), _notes(recipe.steps, gone)


def _narrowed(rule: Rule, gone: dict[str, str]) -> Rule | None:
    """The rule about what is left; None where it spoke only of what is gone."""
    if not rule.on:
        return rule
    left = tuple(name for name in rule.on if name not in gone)
    return rule.model_copy(update={"on": left}) if left else None


def _notes(steps: tuple[ResolvedStep, ...], gone: dict[str, str]) -> tuple[str, ...]:
    reasons: dict[str, list[str]] = {}
    for step in steps:
        if step.id in gone:
            reasons.setdefault(gone[step.id], []).append(step.id)
    return tuple(
        f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} left out: {why}" for why, names in reasons.items()
    )
