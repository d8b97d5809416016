"""What a text-to-text model's files say, in their own runtime: probabilities along given answers, beside those of the
original, and greedy answers. Figures are per token of an answer, as `evaluate_lm.py` defines them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.artifact import Artifact
from edgekit.interrogate import Venue, interrogate
from edgekit.runtimes.base import task_of
from edgekit.runtimes.lm import SEQ2SEQ_RUNTIMES
from edgekit.tasks.text_to_text import Ids

__all__ = ["Along", "greedy_answers", "score_along"]

LONGEST = 128  # tokens of a greedy answer, or fewer where the task's texts are shorter
HERE = Venue(runtimes=SEQ2SEQ_RUNTIMES)


@dataclass(frozen=True)
class Along:
    """(tokens,) of all answers, one after the other: `nll` in nats and `top1`, the likeliest token; the `kld` from the
    original in nats, and whether its likeliest token is the same (`agreed`)."""

    nll: NDArray[np.float64]
    top1: NDArray[np.int64]
    kld: NDArray[np.float64]
    agreed: NDArray[np.bool_]

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log likelihood; nothing is too large."""
        with np.errstate(over="ignore"):
            return float(np.exp(self.nll.mean()))


def score_along(
    artifact: Artifact, sources: Sequence[Ids], targets: Sequence[Ids], reference: Path, venue: Venue = HERE
) -> Along:
    """Score a file along `targets`, the answers to `sources`, beside the original's probabilities of them (a
    `reference` of `evaluate_lm.kept_reference`).

    Raises UsageError for a file that no runtime takes, DeviceError where the runtime fails: also for ids beyond the
    vocabulary, or a reference of other answers.
    """
    found, _ = interrogate("score", artifact, sources, venue, targets=targets, reference=reference)
    kld, agreed = found.kld or [], found.agreed or []
    return Along(
        np.array([value for row in found.nll for value in row], dtype=np.float64),
        np.array([token for row in found.top1 for token in row], dtype=np.int64),
        np.array([value for row in kld for value in row], dtype=np.float64),
        np.array([same for row in agreed for same in row], dtype=np.bool_),
    )


def greedy_answers(artifact: Artifact, sources: Sequence[Ids], venue: Venue = HERE) -> tuple[Ids, ...]:
    """Greedy answers as token ids, each with the token that ends it, of at most LONGEST tokens. Raises as `score_along`
    does."""
    most = min(LONGEST, task_of(artifact).max_length)
    found, _ = interrogate("generate", artifact, sources, venue, new_tokens=most)
    return tuple(tuple(ids) for ids in found.tokens)
