"""How many tokens a pruned vocabulary will keep, before it is pruned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from edgekit.data.table import SplitName, Table
from edgekit.errors import EdgekitError
from edgekit.model_config import read_config
from edgekit.stages.base import Config

__all__ = ["tokens_kept"]

SPLITS: tuple[SplitName, ...] = ("train", "validation", "unlabeled")
ROWS = 2000  # of each split that are looked at: rare tokens of the others are not counted


def tokens_kept(model: Path, config: Config, tables: Mapping[SplitName, Table]) -> int:
    """Tokens that `prune` will keep by its vocabulary's options; 0 where the tokenizer cannot tell."""
    from edgekit.nn.vocabulary import choose_tokens, load_spec, seen_tokens

    if not (model / "tokenizer.json").is_file():
        return 0
    try:
        spec = load_spec(model)
    except EdgekitError:  # the step itself says why
        return 0
    counts = Counter[int]()
    for name in SPLITS:
        if name in tables:
            counts += seen_tokens(spec, tables[name].spread(ROWS).all_texts())
    named = [value for key, value in read_config(model).items() if key.endswith("_token_id")]
    kept = choose_tokens(
        spec,
        counts,
        keep=getattr(config, "vocabulary_keep", "data+pieces"),
        min_count=int(getattr(config, "vocabulary_min_count", 1)),
        common=int(getattr(config, "vocabulary_common", 0)),
        always=[value for value in named if isinstance(value, int)],
    )
    return len(kept)
