"""How many tokens a vocabulary will have, before it is pruned or given letter case."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.data.table import SplitName, Table
from edgekit.errors import EdgekitError, Problem, StageError
from edgekit.model_config import read_config
from edgekit.stages.prune import VOCABULARY_SPLITS, Prune, tokens_to_keep

__all__ = ["tokens_kept", "tokens_recased"]

ROWS = 2000  # of each split that are looked at: rare tokens of the others are not counted


def tokens_recased(model: Path) -> tuple[float, list[Problem]]:
    """How many times as many tokens the model's tokenizer has once `recase` has given it letter case, and why it
    cannot; 1 where the tokenizer cannot tell yet."""
    from edgekit.nn.letter_case import give_case

    spec = _spec(model)
    if spec is None:
        return 1.0, []
    try:
        cased = give_case(spec)
    except StageError as error:
        return 1.0, [Problem("", error.what, error.hint)]
    return cased.size / cased.first, []


def tokens_kept(model: Path, config: Prune, tables: Mapping[SplitName, Table], *, recased: bool = False) -> int:
    """Tokens that `prune` will keep by its vocabulary's options; 0 where the tokenizer cannot tell. `recased`: the
    model's tokenizer was given letter case before."""
    from edgekit.nn.letter_case import give_case
    from edgekit.nn.vocabulary import seen_tokens

    spec = _spec(model)
    if spec is None:
        return 0
    try:
        spec = give_case(spec).spec if recased else spec
    except EdgekitError:  # the step itself says why
        return 0
    some = [tables[name].spread(ROWS) for name in VOCABULARY_SPLITS if name in tables]
    counts = seen_tokens(spec, [text for table in some for text in table.all_texts()])
    return len(tokens_to_keep(spec, counts, config, read_config(model)))


def _spec(model: Path) -> dict[str, Any] | None:
    """`tokenizer.json`; None where it has no vocabulary that can be pruned (the step itself says why)."""
    from edgekit.nn.vocabulary import load_spec

    try:
        return load_spec(model)
    except EdgekitError:
        return None
