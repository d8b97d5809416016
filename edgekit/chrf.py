"""chrF of answers against references (Popovic 2015): F2 over character n-grams of 1 to 6, by sacrebleu, a fraction.

sacrebleu adds up what it counts of each answer; those counts are the evidence that intervals are drawn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import MissingExtraError

__all__ = ["chrf", "chrf_evidence", "has_chrf"]


def has_chrf() -> bool:
    """Whether sacrebleu is installed."""
    return find_spec("sacrebleu") is not None


def chrf_evidence(answers: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:
    """What is counted of each answer, (rows, 18): of 1 to 6 characters the answer's n-grams, the reference's, and those
    that match. Raises MissingExtraError without sacrebleu."""
    counts = _metric()._extract_corpus_statistics(list(answers), [list(references)])
    return np.asarray(counts, dtype=np.float64)


def chrf(evidence: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """chrF of samples that hold each row so many times (see `resampling.Statistic`): (samples, rows) to (samples,)."""
    metric = _metric()
    return np.array([metric._compute_score_from_stats(list(row)).score / 100 for row in counts @ evidence])


def _metric() -> Any:
    try:
        from sacrebleu.metrics.chrf import CHRF
    except ImportError:
        raise MissingExtraError("sacrebleu", "chrf") from None
    return CHRF()
