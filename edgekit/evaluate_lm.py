"""What a language model's file says, in its own runtime: probabilities of held-out text, beside those of the original.

Perplexity is of the tokens that count (the second half of each window, as llama.cpp's perplexity does); the KL
divergence is of the file's distribution from the original's at the same tokens, in nats, as in llama.cpp's
`--kl-divergence`; agreement is the share of tokens at which both find the same one likeliest. Tokens of one window
depend on each other: intervals are over windows.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.artifact import Artifact
from edgekit.digest import digest_json
from edgekit.errors import DataError, StoreError
from edgekit.interrogate import HERE, Venue, identity, interrogate
from edgekit.runtimes import Runtimes
from edgekit.runtimes.lm import LM_RUNTIMES
from edgekit.statistics import Interval, mean_interval
from edgekit.tasks.language_modeling import Windows

__all__ = [
    "Parity",
    "Scores",
    "generation_parity",
    "kept_reference",
    "perplexity_ratio",
    "reference_of",
    "score_windows",
]

REFERENCE = "logprobs.npy"


@dataclass(frozen=True)
class Scores:
    """(windows, tokens) of the tokens that count: `nll` in nats and `top1`, the likeliest token; beside a reference the
    `kld` from it in nats, and whether the likeliest token is the same (`agreed`)."""

    nll: NDArray[np.float64]
    top1: NDArray[np.int64]
    kld: NDArray[np.float64] | None
    agreed: NDArray[np.bool_] | None
    runtime: str
    version: str
    peak_rss_bytes: int

    @property
    def perplexity(self) -> Interval:
        """exp of the mean negative log likelihood."""
        return _exp(mean_interval(self.nll.mean(axis=1)))

    @property
    def divergence(self) -> Interval | None:
        """Mean KL divergence, nats per token."""
        return mean_interval(self.kld.mean(axis=1)) if self.kld is not None else None

    @property
    def agreement(self) -> Interval | None:
        """Share of tokens with the same likeliest token."""
        return mean_interval(self.agreed.mean(axis=1)) if self.agreed is not None else None

    @property
    def intervals(self) -> dict[str, Interval]:
        """All figures by name: perplexity, kld, agreement."""
        found = {"perplexity": self.perplexity, "kld": self.divergence, "agreement": self.agreement}
        return {name: interval for name, interval in found.items() if interval is not None}

    @property
    def metrics(self) -> dict[str, float]:
        return {name: interval.value for name, interval in self.intervals.items()}


def perplexity_ratio(original: Scores, other: Scores) -> Interval:
    """Perplexity of `other` over that of `original`, paired by windows. Raises DataError for other windows."""
    if original.nll.shape != other.nll.shape:
        raise DataError(f"scores of {original.nll.shape} and {other.nll.shape} tokens cannot be paired")
    return _exp(mean_interval((other.nll - original.nll).mean(axis=1)))


@dataclass(frozen=True)
class Parity:
    """Greedy continuations of two files: `same` (prompts, tokens) says which tokens come before any difference."""

    same: NDArray[np.bool_]

    @property
    def exact(self) -> float:
        """Share of prompts that are continued alike to the end."""
        return float(self.same.all(axis=1).mean())

    @property
    def tokens(self) -> float:
        """Share of tokens before the first that differs."""
        return float(self.same.mean())


def score_windows(
    artifact: Artifact, windows: Windows, *, reference: Path | None = None, venue: Venue = HERE
) -> Scores:
    """Score a file on windows, beside a `reference` (of `reference_of`, for the same windows) where there is one.

    Raises UsageError for a file that no runtime takes, DeviceError where the runtime fails: also for ids beyond the
    vocabulary, a window longer than the model's context, or a reference of other windows.
    """
    rows = windows.ids.tolist()
    found, samples = interrogate("score", artifact, rows, venue, scored_from=windows.scored_from, reference=reference)
    return Scores(
        np.asarray(found.nll, dtype=np.float64),
        np.asarray(found.top1, dtype=np.int64),
        np.asarray(found.kld, dtype=np.float64) if found.kld is not None else None,
        np.asarray(found.agreed, dtype=np.bool_) if found.agreed is not None else None,
        samples.runtime,
        samples.version,
        samples.peak_rss_bytes,
    )


def reference_of(
    artifact: Artifact, windows: Windows, cache: Path, *, runtimes: Runtimes = LM_RUNTIMES, threads: int = 0
) -> Path:
    """A file of the log-probabilities (windows, tokens, vocabulary) that `artifact` (the original) gives, on this
    machine; see `kept_reference`."""
    here = Venue(runtimes=runtimes, threads=threads)
    return kept_reference(artifact, windows.ids.tolist(), cache, here, scored_from=windows.scored_from)


def kept_reference(
    artifact: Artifact,
    rows: Sequence[Sequence[int]],
    cache: Path,
    venue: Venue,
    *,
    targets: Sequence[Sequence[int]] | None = None,
    scored_from: int = 1,
) -> Path:
    """A file of the log-probabilities that `artifact` (the original) gives of rows, or of targets after them, computed
    once and kept below `cache`; for this machine, wherever files are then held against it.

    Raises as `score_windows` does, and StoreError where the cache cannot be written.
    """
    key = digest_json({"logprobs": identity(artifact, rows, venue, targets), "scored_from": scored_from})
    folder = cache / "references" / key
    if (folder / REFERENCE).is_file():
        os.utime(folder)  # used now: see Store.gc
        return folder / REFERENCE
    partial = folder.with_suffix(f".{os.getpid()}.part")
    output = partial / REFERENCE
    try:
        partial.mkdir(parents=True, exist_ok=True)
        interrogate("dump", artifact, rows, venue, targets=targets, scored_from=scored_from, output=output)
        with suppress(FileExistsError):  # another run was faster
            partial.rename(folder)
    except OSError as error:
        raise StoreError(f"{cache}: cannot be written ({error})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder / REFERENCE


def generation_parity(
    original: Artifact, artifact: Artifact, prompts: Windows, *, tokens: int = 32, venue: Venue = HERE
) -> Parity:
    """Continue each window greedily by `tokens` tokens with both files: the original on this machine, the other at the
    venue. Raises as `score_windows` does; the context must hold the window and the continuation.
    """
    rows = prompts.ids.tolist()
    theirs = interrogate("generate", original, rows, Venue(cache=venue.cache), new_tokens=tokens)[0]
    ours = interrogate("generate", artifact, rows, venue, new_tokens=tokens)[0]
    equal = np.asarray(theirs.tokens) == np.asarray(ours.tokens)
    return Parity(np.logical_and.accumulate(equal, axis=1))


def _exp(interval: Interval) -> Interval:
    """The interval of exp(x) from that of x; nothing is too large."""
    with np.errstate(over="ignore"):
        value, low, high = (float(np.exp(v)) for v in (interval.value, interval.low, interval.high))
    return Interval(value=value, low=low, high=high)
