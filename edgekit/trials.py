"""The whole list of how kinds of models are tried: what is fed to them, and the two things that are found with it.

A kind's trial holds the data as its models take them; `answers` says what files say of them, `speeds` how fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgekit.answers import Answers, answers_of, windows_of
from edgekit.artifact import ENCODER_KINDS, Artifact, TaskKind
from edgekit.bench import Bench, Decided, measure
from edgekit.bench_lm import measure_lm
from edgekit.data.table import Table
from edgekit.progress import Progress
from edgekit.report.schema import Speed
from edgekit.runtimes.base import Workload, task_of
from edgekit.targets import Target
from edgekit.tasks.language_modeling import Windows
from edgekit.trial_seq2seq import seq2seq_trial

__all__ = ["TRIALS", "Trial", "trial_of"]


class Trial(Protocol):
    """Files of one kind, tried on one table. `notes`: what the report says about it."""

    @property
    def notes(self) -> tuple[str, ...]: ...

    def answers(
        self,
        artifacts: Mapping[str, Artifact],
        baseline: str,
        workload: Workload,
        target: Target,
        progress: Progress,
        cache: Path | None,
    ) -> dict[str, Answers]:
        """Every file's answers, the baseline's first. Raises DataError and DeviceError where there are none."""

    def speeds(
        self,
        artifacts: Mapping[str, Artifact],
        baseline: str,
        workload: Workload,
        target: Target,
        progress: Progress,
        decided: Decided,
    ) -> tuple[Bench, Mapping[str, Speed]]:
        """What a gate judges, and the speeds of language models by file. Raises as `bench.measure` does."""


@dataclass(frozen=True)
class EncoderTrial:
    """Rows of a table; times of inferences."""

    table: Table
    notes: tuple[str, ...] = ()

    def answers(
        self,
        artifacts: Mapping[str, Artifact],
        baseline: str,
        workload: Workload,
        target: Target,
        progress: Progress,
        cache: Path | None,
    ) -> dict[str, Answers]:
        """See `Trial`."""
        return answers_of(artifacts, baseline, self.table, None, workload, target, progress, cache)

    def speeds(
        self,
        artifacts: Mapping[str, Artifact],
        baseline: str,
        workload: Workload,
        target: Target,
        progress: Progress,
        decided: Decided,
    ) -> tuple[Bench, Mapping[str, Speed]]:
        """See `Trial`."""
        bench = measure(
            artifacts,
            baseline,
            self.table,
            workload,
            progress=progress,
            transport=target.transport,
            runtimes=target.runtimes,
            decided=decided,
        )
        return bench, {}


@dataclass(frozen=True)
class LmTrial:
    """Windows of a table's texts; times of decode steps."""

    table: Table
    windows: Windows | None
    notes: tuple[str, ...] = ()

    def answers(
        self,
        artifacts: Mapping[str, Artifact],
        baseline: str,
        workload: Workload,
        target: Target,
        progress: Progress,
        cache: Path | None,
    ) -> dict[str, Answers]:
        """See `Trial`."""
        return answers_of(artifacts, baseline, self.table, self.windows, workload, target, progress, cache)

    def speeds(
        self,
        artifacts: Mapping[str, Artifact],
        baseline: str,
        workload: Workload,
        target: Target,
        progress: Progress,
        decided: Decided,
    ) -> tuple[Bench, Mapping[str, Speed]]:
        """See `Trial`."""
        assert self.windows is not None
        found = measure_lm(
            artifacts,
            baseline,
            self.windows,
            workload,
            data=self.table.name,
            progress=progress,
            transport=target.transport,
            runtimes=target.runtimes,
            decided=decided,
        )
        return found.decode, found.speeds


Make = Callable[[Artifact, Table, Workload], Trial]
TRIALS: dict[TaskKind, Make] = {
    **dict.fromkeys(ENCODER_KINDS, lambda _, table, __: EncoderTrial(table)),
    "language-modeling": lambda artifact, table, workload: LmTrial(table, windows_of(artifact, table, workload)),
    "text-to-text": seq2seq_trial,
}


def trial_of(artifact: Artifact, table: Table, workload: Workload) -> Trial:
    """The trial of the artifact's kind. Raises DataError for a table that its models cannot be fed."""
    return TRIALS[task_of(artifact).kind](artifact, table, workload)
