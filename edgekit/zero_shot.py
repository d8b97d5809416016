"""Zero-shot scores of a language model's file: which of two sentences it finds more likely."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.artifact import Artifact
from edgekit.data.table import Table
from edgekit.errors import DataError
from edgekit.interrogate import HERE, Venue, interrogate
from edgekit.model_config import ModelConfig, read_config
from edgekit.statistics import Interval, mean_interval

__all__ = ["MinimalPairs", "blimp_score"]


@dataclass(frozen=True)
class MinimalPairs:
    """Log likelihoods (pairs,) in nats of the good and of the bad sentence."""

    good: NDArray[np.float64]
    bad: NDArray[np.float64]

    @property
    def accuracy(self) -> Interval:
        """Share of pairs whose good sentence is the likelier; chance is a half."""
        return mean_interval((self.good > self.bad).astype(np.float64))


def blimp_score(artifact: Artifact, pairs: Table, tokenizer: Path, *, venue: Venue = HERE) -> MinimalPairs:
    """Score minimal pairs (BLiMP, Warstadt et al. 2020): `pairs.texts` are the good sentences, `pairs.pairs` the bad.

    All tokens of a sentence count, after the token that begins a text (or, where the model has none, the one that ends
    one). `tokenizer`: the original's folder, with tokenizer.json and config.json. Raises DataError where there are no
    pairs, or config.json names neither token, and as `interrogate` does.
    """
    if pairs.pairs is None or len(pairs) == 0:
        raise DataError(f"{pairs.name}: no pairs of sentences", hint="columns sentence_good and sentence_bad")
    rows = _tokens(tokenizer, [*pairs.texts, *pairs.pairs])
    found, _ = interrogate("score", artifact, rows, venue)
    totals = -np.asarray([sum(row) for row in found.nll], dtype=np.float64)
    return MinimalPairs(totals[: len(pairs)], totals[len(pairs) :])


def _tokens(folder: Path, texts: list[str]) -> list[list[int]]:
    """Token ids of each text, with the token that begins it."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    first = _first(read_config(folder))
    return [[first, *e.ids] for e in tokenizer.encode_batch(texts, add_special_tokens=False)]


def _first(config: ModelConfig) -> int:
    for name in ("bos_token_id", "eos_token_id"):
        value = config.get(name)
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, int):
            return value
    raise DataError("config.json names no token that begins or ends a text", hint="add bos_token_id")
