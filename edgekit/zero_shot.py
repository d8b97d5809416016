"""Zero-shot scores of a language model's file: which of two sentences it finds more likely."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from edgekit.artifact import Artifact
from edgekit.data.load import Columns, load_table
from edgekit.data.table import Table
from edgekit.errors import DataError
from edgekit.interrogate import HERE, Venue, interrogate
from edgekit.statistics import Interval, mean_interval
from edgekit.tokenizer_files import open_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["MinimalPairs", "blimp_score", "first_token", "read_pairs"]

COLUMNS = Columns(text="sentence_good", pair="sentence_bad")


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
    one). `tokenizer`: a folder with tokenizer.json, and config.json or tokenizer_config.json. Raises DataError where
    there are no pairs, or neither token is named, and as `interrogate` does.
    """
    if pairs.pairs is None or len(pairs) == 0:
        raise DataError(f"{pairs.name}: no pairs of sentences", hint="columns sentence_good and sentence_bad")
    rows = _tokens(tokenizer, [*pairs.texts, *pairs.pairs])
    found, _ = interrogate("score", artifact, rows, venue)
    totals = -np.asarray([sum(row) for row in found.nll], dtype=np.float64)
    return MinimalPairs(totals[: len(pairs)], totals[len(pairs) :])


def read_pairs(source: str, most: int) -> Table:
    """Minimal pairs of a file, or of all .jsonl files of a folder (BLiMP has one for each paradigm, equally long), in
    columns sentence_good and sentence_bad; at most so many, evenly spaced. Raises DataError as `load_table` does."""
    folder = Path(source)
    files = [str(path) for path in sorted(folder.glob("*.jsonl"))] if folder.is_dir() else [source]
    tables = [load_table(file, COLUMNS, split="test") for file in files]
    texts = tuple(text for table in tables for text in table.texts)
    pairs = tuple(text for table in tables for text in table.pairs or ())
    return Table(texts, pairs, name=source).spread(most)


def _tokens(folder: Path, texts: list[str]) -> list[list[int]]:
    """Token ids of each text, with the token that begins it."""
    tokenizer = open_tokenizer(folder)
    first = first_token(folder, tokenizer)
    return [[first, *e.ids] for e in tokenizer.encode_batch(texts, add_special_tokens=False)]


def first_token(folder: Path, tokenizer: Tokenizer) -> int:
    """The token that begins a text, or else ends one: by config.json, or by name in tokenizer_config.json.

    Raises DataError where neither names one.
    """
    told = _json(folder / "config.json")
    named = _json(folder / "tokenizer_config.json")
    for name in ("bos_token", "eos_token"):
        value = told.get(f"{name}_id")
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, int):
            return value
        text = named.get(name)
        text = text.get("content") if isinstance(text, dict) else text
        found = tokenizer.token_to_id(text) if isinstance(text, str) else None
        if isinstance(found, int):
            return found
    raise DataError(
        f"{folder} names no token that begins or ends a text", hint="add bos_token to tokenizer_config.json"
    )


def _json(path: Path) -> dict[str, JsonValue]:
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content if isinstance(content, dict) else {}
