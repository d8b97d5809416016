"""Text-to-text models' files on texts and references: see `trials.py`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekit.answers import Answers, Tried
from edgekit.artifact import Artifact
from edgekit.bench import Bench, Decided
from edgekit.bench_seq2seq import measure_seq2seq
from edgekit.chrf import chrf, chrf_evidence, has_chrf
from edgekit.data.table import Table
from edgekit.evaluate_lm import kept_reference
from edgekit.evaluate_seq2seq import greedy_answers, score_along
from edgekit.interrogate import Venue
from edgekit.report.schema import Speed
from edgekit.runtimes.base import Workload, task_of
from edgekit.runtimes.lm import SEQ2SEQ_RUNTIMES
from edgekit.tasks.text_to_text import Exchanges, Ids, make_exchanges, texts_of

__all__ = ["Seq2SeqTrial", "seq2seq_trial"]

NO_CHRF = "chrF was not measured: it needs sacrebleu (pip install 'edgekit[chrf]')"
NO_REFERENCES = "the data have no reference answers: files are compared along the baseline's greedy answers"
NO_TARGETS = "this model's files cannot cut the references into tokens: probabilities are of the baseline's answers"


@dataclass(frozen=True)
class Seq2SeqTrial:
    """Texts and references of a table, and the answers along which files are scored: the references as tokens
    (`exchanges.targets`), else the baseline's own. Times of decode steps."""

    table: Table
    exchanges: Exchanges
    targets: tuple[Ids, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be measured."""
        if self.exchanges.references is None:
            return (NO_REFERENCES,)
        found = () if self.exchanges.targets is not None else (NO_TARGETS,)
        return found if has_chrf() else (*found, NO_CHRF)

    def answers(self, tried: Tried, cache: Path | None) -> dict[str, Answers]:
        """See `Trial`."""
        sources, workload = self.exchanges.sources, tried.workload
        here = Venue(threads=workload.threads, runtimes=tried.target.runtimes)
        with ExitStack() as stack:
            folder = cache or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            base = tried.artifacts[tried.baseline]
            reference = kept_reference(base, sources, folder, here, targets=self.targets)
            files, venue = tried.each(f"answers to {len(sources)} texts"), tried.venue(cache)
            return {name: self._answered(artifact, reference, venue) for name, artifact in files}

    def _answered(self, artifact: Artifact, reference: Path, venue: Venue) -> Answers:
        """Along the targets; and of the file's own answers, where there are references, what they are worth."""
        sources, references = self.exchanges.sources, self.exchanges.references
        along = score_along(artifact, sources, self.targets, reference, venue)
        metrics = {"kld": float(along.kld.mean()), "agreement": float(along.agreed.mean())}
        if self.exchanges.targets is not None:
            metrics["perplexity"] = along.perplexity
        if references is None:
            return Answers(along.top1, None, metrics)
        texts = texts_of(artifact.path, greedy_answers(artifact, sources, venue))
        metrics["exact_match"] = sum(map(_same, texts, references)) / len(references)
        if not has_chrf():
            return Answers(along.top1, None, metrics)
        evidence = chrf_evidence(texts, references)
        metrics["chrf"] = float(chrf(evidence, np.ones((1, len(evidence)), dtype=np.int64))[0])
        return Answers(along.top1, None, metrics, evidence=evidence, statistic=chrf)

    def speeds(self, tried: Tried, decided: Decided) -> tuple[Bench, Mapping[str, Speed]]:
        """See `Trial`."""
        found = measure_seq2seq(
            tried.artifacts,
            tried.baseline,
            self.exchanges.sources,
            self.targets,
            tried.workload,
            data=self.table.name,
            progress=tried.progress,
            transport=tried.target.transport,
            runtimes=tried.target.runtimes,
            decided=decided,
        )
        return found.decode, found.speeds


def seq2seq_trial(artifact: Artifact, table: Table, workload: Workload) -> Seq2SeqTrial:
    """The trial of files beside the baseline `artifact`, on `workload.windows` of the table's rows at most.

    Raises DataError for a text without a token, DeviceError where the baseline cannot be run.
    """
    exchanges = make_exchanges(artifact.path, table, task_of(artifact), most=workload.windows)
    here = Venue(runtimes=SEQ2SEQ_RUNTIMES, threads=workload.threads)
    return Seq2SeqTrial(table, exchanges, exchanges.targets or greedy_answers(artifact, exchanges.sources, here))


def _same(answer: str, reference: str) -> bool:
    return answer.strip() == reference.strip()
