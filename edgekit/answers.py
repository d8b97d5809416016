"""What files answer on the test data, each in its own runtime, and what that is worth: by the task."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.artifact import Artifact
from edgekit.correctness import Correctness
from edgekit.data.table import Table
from edgekit.evaluate import judge, paired_drop, predict, predict_torch
from edgekit.evaluate_lm import reference_of, score_windows
from edgekit.interrogate import Venue
from edgekit.progress import Progress
from edgekit.resampling import Statistic, bootstrap_chance, bootstrap_drop
from edgekit.runtimes.base import Workload, task_of
from edgekit.statistics import Chance, Drop, chance_check
from edgekit.targets import Target
from edgekit.tasks.base import agreement
from edgekit.tasks.encoders import ENCODER_TASKS, is_ready
from edgekit.tasks.language_modeling import Windows, make_windows, targets_of
from edgekit.zero_shot import blimp_score, read_pairs

__all__ = [
    "Answers",
    "Tried",
    "answers_of",
    "at_chance",
    "drop_between",
    "lm_answers_of",
    "reference_metrics",
    "same_label",
    "windows_of",
]

PAIRS = 2000  # sentences are short: this is a minute for a small model


@dataclass(frozen=True)
class Answers:
    """What a file predicts, and what is right (`truth`; None where the data have no labels), (n,) each: class numbers,
    similarities, or of language models the token at each position that counts; and the task's metrics. `evidence`, by
    row of the data, and the `statistic` that it gives, where the main metric is no share of right answers
    (`tasks.base`)."""

    labels: NDArray[Any]
    truth: NDArray[Any] | None
    metrics: dict[str, float]
    packed: Correctness | None = None
    evidence: NDArray[np.float64] | None = None
    statistic: Statistic | None = None

    @property
    def correct(self) -> NDArray[np.bool_] | None:
        return None if self.truth is None or self.statistic is not None else self.labels == self.truth


@dataclass(frozen=True)
class Tried:
    """Files that are tried beside a `baseline` among them: how, where, and who hears how far it is."""

    artifacts: Mapping[str, Artifact]
    baseline: str
    workload: Workload
    target: Target
    progress: Progress

    def each(self, what: str) -> Iterator[tuple[str, Artifact]]:
        """The files, the baseline first, while the progress says `what` is done."""
        names = sorted(self.artifacts, key=lambda name: name != self.baseline)
        return ((name, self.artifacts[name]) for name in self.progress.track(names, what, len(names)))

    def venue(self, cache: Path | None) -> Venue:
        """Where language models' files are asked."""
        return Venue(self.target.transport, self.target.runtimes, self.workload.threads, cache)


def answers_of(tried: Tried, table: Table, cache: Path | None) -> dict[str, Answers]:
    """Every encoder's answers on `table`, the baseline's first. Raises DataError and DeviceError as `predict` does."""
    files = tried.each(f"accuracy on {len(table)} rows")
    return {name: _classified(artifact, table, tried.workload, tried.target, cache) for name, artifact in files}


def lm_answers_of(tried: Tried, windows: Windows, data: str, cache: Path | None) -> dict[str, Answers]:
    """Every language model's answers on `windows` of a table with the digest `data`, the baseline's first.

    Raises DataError and DeviceError as `score_windows` does.
    """
    venue, workload = tried.venue(cache), tried.workload
    pairs = read_pairs(workload.pairs, PAIRS) if workload.pairs else None
    files = tried.each(f"perplexity on {windows.scored:,} tokens")
    with _reference(tried.artifacts[tried.baseline], windows, workload, cache) as reference:
        return {name: _modeled(artifact, windows, reference, pairs, data, venue) for name, artifact in files}


def windows_of(artifact: Artifact, table: Table, workload: Workload) -> Windows | None:
    """The texts as a language model is scored and timed on them; None for a classifier.

    Raises DataError where they do not fill one.
    """
    task = task_of(artifact)
    if task.kind in ENCODER_TASKS:
        return None
    return make_windows(artifact.path, table, task, most=workload.windows)


def reference_metrics(
    artifact: Artifact, table: Table, workload: Workload, *, threads: int, device: str, cache: Path | None
) -> dict[str, float]:
    """Metrics of an `hf` artifact in torch, on this machine: what a step did, before there is a file to run. None for a
    model without a head. Raises DataError, ModelError and DeviceError as `predict_torch` and `score_windows` do."""
    task = task_of(artifact)
    if (windows := windows_of(artifact, table, workload)) is not None:
        scores = score_windows(artifact, windows, venue=Venue(threads=threads, cache=cache))
        return {"accuracy": float(np.mean(scores.top1.ravel() == targets_of(windows))), **scores.metrics}
    if not is_ready(task):
        return {}
    found = predict_torch(artifact, table, threads=threads, device=device, cache=cache)
    return judge(artifact, found, table).metrics


def same_label(first: Answers, second: Answers) -> float:
    """Share of examples (of a tagger, of words) on which both predict the same, right or wrong; of similarities their
    rank correlation. Raises ValueError for unlike counts."""
    return agreement(first.labels, second.labels)


def at_chance(answers: Answers) -> Chance | None:
    """Whether the answers are not significantly better than the commonest label (or token) always, or where that finds
    nothing, than 0; None without labels.

    Whoever compares with such a file compares with noise: a gate refuses it.
    """
    if answers.statistic is not None and answers.evidence is not None:
        return bootstrap_chance(answers.statistic, answers.evidence)
    return None if answers.correct is None or answers.truth is None else chance_check(answers.correct, answers.truth)


def drop_between(parent: Answers, child: Answers) -> Drop | None:
    """The main metric of `parent` minus that of `child`, paired by the rows of the data; None without labels."""
    if parent.statistic is not None and parent.evidence is not None and child.evidence is not None:
        return bootstrap_drop(parent.statistic, parent.evidence, child.evidence)
    if parent.correct is None or child.correct is None:
        return None
    return paired_drop(parent.correct, child.correct)


def _classified(artifact: Artifact, table: Table, workload: Workload, target: Target, cache: Path | None) -> Answers:
    found = predict(
        artifact, table, threads=workload.threads, transport=target.transport, runtimes=target.runtimes, cache=cache
    )
    judged = judge(artifact, found, table)
    statistic = ENCODER_TASKS[task_of(artifact).kind].statistic
    answers = Answers(judged.answers, judged.truth, judged.metrics, None, judged.evidence, statistic)
    if answers.correct is None:
        return answers
    return replace(answers, packed=Correctness.pack(answers.correct.tolist(), table.digest))


@contextmanager
def _reference(base: Artifact, windows: Windows, workload: Workload, cache: Path | None) -> Iterator[Path]:
    """The baseline's probabilities, in the cache or in a folder that goes away."""
    with ExitStack() as stack:
        folder = cache or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        yield reference_of(base, windows, folder, threads=workload.threads)


def _modeled(
    artifact: Artifact, windows: Windows, reference: Path, pairs: Table | None, data: str, venue: Venue
) -> Answers:
    scores = score_windows(artifact, windows, reference=reference, venue=venue)
    truth, labels = targets_of(windows), scores.top1.ravel()
    right = labels == truth
    metrics = {"accuracy": float(np.mean(right)), **scores.metrics}
    if pairs is not None:
        metrics["minimal_pairs"] = blimp_score(artifact, pairs, artifact.path, venue=venue).accuracy.value
    return Answers(labels, truth, metrics, Correctness.pack(right.tolist(), data))
