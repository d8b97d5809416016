"""The whole list of how kinds of models are tried: what is fed to them, and the two things that are found with it.

A kind's trial holds the data as its models take them; `answers` says what files say of them, `speeds` how fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgekit.answers import Answers, Tried, answers_of, lm_answers_of
from edgekit.artifact import ENCODER_KINDS, Artifact, TaskKind
from edgekit.bench import Bench, Decided, measure
from edgekit.bench_lm import measure_lm
from edgekit.data.table import Table
from edgekit.report.schema import Speed
from edgekit.runtimes.base import Workload, task_of
from edgekit.tasks.language_modeling import Windows, make_windows
from edgekit.trial_seq2seq import seq2seq_trial

__all__ = ["TRIALS", "Trial", "trial_of"]


class Trial(Protocol):
    """One table, as one kind of models takes it. `notes`: what the report says about it."""

    @property
    def notes(self) -> tuple[str, ...]: ...

    def answers(self, tried: Tried, cache: Path | None) -> dict[str, Answers]:
        """Every file's answers, the baseline's first. Raises DataError and DeviceError where there are none."""

    def speeds(self, tried: Tried, decided: Decided) -> tuple[Bench, Mapping[str, Speed]]:
        """What a gate judges, and the speeds of language models by file. Raises as `bench.measure` does."""


@dataclass(frozen=True)
class EncoderTrial:
    """Rows of a table; times of inferences."""

    table: Table
    notes: tuple[str, ...] = ()

    def answers(self, tried: Tried, cache: Path | None) -> dict[str, Answers]:
        """See `Trial`."""
        return answers_of(tried, self.table, cache)

    def speeds(self, tried: Tried, decided: Decided) -> tuple[Bench, Mapping[str, Speed]]:
        """See `Trial`."""
        bench = measure(
            tried.artifacts,
            tried.baseline,
            self.table,
            tried.workload,
            progress=tried.progress,
            transport=tried.target.transport,
            runtimes=tried.target.runtimes,
            decided=decided,
        )
        return bench, {}


@dataclass(frozen=True)
class LmTrial:
    """Windows of a table's texts; times of decode steps."""

    table: Table
    windows: Windows
    notes: tuple[str, ...] = ()

    def answers(self, tried: Tried, cache: Path | None) -> dict[str, Answers]:
        """See `Trial`."""
        return lm_answers_of(tried, self.windows, self.table.digest, cache)

    def speeds(self, tried: Tried, decided: Decided) -> tuple[Bench, Mapping[str, Speed]]:
        """See `Trial`."""
        found = measure_lm(
            tried.artifacts,
            tried.baseline,
            self.windows,
            tried.workload,
            data=self.table.name,
            progress=tried.progress,
            transport=tried.target.transport,
            runtimes=tried.target.runtimes,
            decided=decided,
        )
        return found.decode, found.speeds


def _lm_trial(artifact: Artifact, table: Table, workload: Workload) -> LmTrial:
    return LmTrial(table, make_windows(artifact.path, table, task_of(artifact), most=workload.windows))


Make = Callable[[Artifact, Table, Workload], Trial]
TRIALS: dict[TaskKind, Make] = {
    **dict.fromkeys(ENCODER_KINDS, lambda _, table, __: EncoderTrial(table)),
    "language-modeling": _lm_trial,
    "text-to-text": seq2seq_trial,
}


def trial_of(artifact: Artifact, table: Table, workload: Workload) -> Trial:
    """The trial of the artifact's kind. Raises DataError for a table that its models cannot be fed."""
    return TRIALS[task_of(artifact).kind](artifact, table, workload)
