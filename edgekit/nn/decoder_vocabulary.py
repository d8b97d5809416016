"""Which tokens of a decoder stay, by the share that goes, and the model of those alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from edgekit.errors import StageError
from edgekit.nn.decoder_sizes import sizes_of
from edgekit.nn.decoder_surgery import keep_all, shrink
from edgekit.nn.vocabulary import Keep, Spec, choose_tokens, tokens_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["keep_tokens", "named_ids", "rarest_out"]


def rarest_out(spec: Spec, counts: Counter[int], share: float, *, keep: Keep, always: set[int]) -> list[int]:
    """Ids that stay when about a `share` of the tokens goes, the rarest in `counts` first (of equally rare ones, those
    with the highest ids). What stays anyway (see `choose_tokens`) may be more than the share leaves.
    """
    ids = sorted(tokens_of(spec).values())
    room = round(len(ids) * (1 - share))
    ranked = sorted(ids, key=lambda i: (-counts[i], i))

    def kept(most: int) -> list[int]:
        some = Counter(dict.fromkeys(ranked[:most], 1))
        return choose_tokens(spec, some, keep=keep, min_count=1, common=0, always=always)

    low, high = 0, room  # what is kept only grows with the number of common tokens
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(kept(middle)) <= room else (low, middle - 1)
    return kept(low)


def named_ids(model: PreTrainedModel) -> set[int]:
    """The ids that the config and the generation settings name."""
    found: set[int] = set()
    for settings in (model.config, model.generation_config):
        for key, value in settings.to_dict().items():
            if key.endswith("_token_id"):
                found |= {i for i in (value if isinstance(value, list) else [value]) if i is not None and i >= 0}
    return found


def keep_tokens(model: PreTrainedModel, kept: list[int]) -> PreTrainedModel:
    """A model with the rows `kept` of the embedding and the output layer, and its token ids renumbered.

    Raises StageError where the tokenizer has ids that the embedding has no row for.
    """
    import torch

    sizes = sizes_of(model.config)
    if kept[-1] >= sizes.vocabulary:
        what = f"the tokenizer has a token {kept[-1]}, the model only {sizes.vocabulary} embeddings"
        raise StageError(what, hint="tokenizer and model do not belong together")
    return shrink(model, replace(keep_all(sizes), vocabulary=torch.tensor(kept)))
