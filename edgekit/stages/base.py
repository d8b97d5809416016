"""What all stages share: the context they are given and the outcome they return. Nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from edgekit.artifact import Artifact, Facts, Format, Frozen, Task, TaskKind
from edgekit.data.table import SplitName, Table
from edgekit.digest import digest_json
from edgekit.errors import StageError
from edgekit.progress import Progress, Silent

__all__ = ["Config", "Context", "Outcome", "SplitName", "job_identity", "kind_of"]


class Config(Frozen):
    """Base of every stage's config: its fields are the stage's options on the command line and in a recipe.

    Every field has a `description` (the option's help) and a default.
    """

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that it names and the stage reads: their content, too, is in the cache key."""
        return ()


@dataclass(frozen=True)
class Context:
    """What a stage may use besides its source: data by split, teachers, a device, and a way to tell how far it is.

    `scratch` survives a kill: a stage that is called again with the same key may go on from what it left there.
    """

    data: Mapping[SplitName, Table] = field(default_factory=dict)
    teachers: tuple[Artifact, ...] = ()
    task: Task | None = None  # the recipe's task; `labels` empty until the data are read
    scratch: Path | None = None
    device: str = "cpu"
    threads: int = 0  # 0: as many as the machine has
    progress: Progress = field(default_factory=Silent)

    @property
    def teacher(self) -> Artifact | None:
        """The first, or only, teacher."""
        return self.teachers[0] if self.teachers else None

    def split(self, name: SplitName) -> Table:
        """The split's table. Raises StageError where the step was given none."""
        if name not in self.data:
            raise StageError(f"this stage needs the {name} data", hint=f"give --{name} FILE")
        return self.data[name]

    def calibration(self) -> Table:
        """What is looked at to see what flows through a model: the training data, else the unlabeled.

        Raises StageError where the step was given neither.
        """
        return self.split("unlabeled" if "train" not in self.data and "unlabeled" in self.data else "train")


def kind_of(source: Artifact, context: Context) -> TaskKind:
    """The kind of task that a model is for, or will be: its own, else the recipe's."""
    task = source.task or context.task
    return task.kind if task else "text-classification"


def job_identity(stage: str, config: Config, task: Task, data: JsonValue, **parents: Artifact) -> str:
    """What names a training, so that another's checkpoint is not taken up. `stage`: its name and version; `data`:
    digests of what it reads; `parents`: source, and teachers."""
    return digest_json(
        {
            "stage": stage,
            **{name: artifact.key for name, artifact in parents.items()},
            "config": config.model_dump(mode="json"),
            "task": task.model_dump(mode="json"),
            "data": data,
        }
    )


@dataclass(frozen=True)
class Outcome:
    """What a stage made: the folder's format, what was done, the task it serves, and what it measured on the way."""

    format: Format
    facts: Facts
    task: Task | None
    metrics: dict[str, float] = field(default_factory=dict)
