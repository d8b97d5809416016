"""How many tokens a pruned vocabulary will keep, before it is pruned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgekit.data.table import SplitName, Table
from edgekit.errors import EdgekitError
from edgekit.model_config import read_config
from edgekit.stages.prune import VOCABULARY_SPLITS, Prune, tokens_to_keep

__all__ = ["tokens_kept"]

ROWS = 2000  # of each split that are looked at: rare tokens of the others are not counted


def tokens_kept(model: Path, config: Prune, tables: Mapping[SplitName, Table]) -> int:
    """Tokens that `prune` will keep by its vocabulary's options; 0 where the tokenizer cannot tell."""
    from edgekit.nn.vocabulary import load_spec, seen_tokens

    if not (model / "tokenizer.json").is_file():
        return 0
    try:
        spec = load_spec(model)
    except EdgekitError:  # the step itself says why
        return 0
    some = [tables[name].spread(ROWS) for name in VOCABULARY_SPLITS if name in tables]
    counts = seen_tokens(spec, [text for table in some for text in table.all_texts()])
    return len(tokens_to_keep(spec, counts, config, read_config(model)))
