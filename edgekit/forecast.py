"""What a plan expects of each step, by the task: encoders' shapes, or language models'."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekit import shapes, shapes_lm
from edgekit.artifact import ENCODER_KINDS, Artifact, Task
from edgekit.errors import Problem
from edgekit.shapes import Cost, Shape, Tables
from edgekit.stages.base import Config

__all__ = ["cost_of", "next_shape", "shape_of"]


def shape_of(model: Artifact, task: Task) -> Shape:
    """The shape of the recipe's model. Raises ModelError for an architecture that is not supported."""
    return shapes.shape_of(model, task) if task.kind in ENCODER_KINDS else shapes_lm.shape_of(model)


def next_shape(
    shape: Shape, stage: str, config: Config, task: Task, model: Path, tables: Tables
) -> tuple[Shape, list[Problem]]:
    """The shape after a step, and why the step cannot work. `model`: the folder of the recipe's model."""
    if task.kind in ENCODER_KINDS:
        return shapes.next_shape(shape, stage, config, task, model, tables)
    return shapes_lm.next_shape(shape, stage, config, model)


def cost_of(
    before: Shape, after: Shape, stage: str, config: Config, task: Task, tables: Tables, teachers: Sequence[Shape]
) -> Cost:
    """What a step should need. `teachers`: those whose answers it learns."""
    if task.kind in ENCODER_KINDS:
        return shapes.cost_of(before, after, stage, config, task, tables, teachers)
    return shapes_lm.cost_of(before, after, stage)
