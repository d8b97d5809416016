"""Encoder-decoder language models as plain Transformers checkpoints, and how they generate greedily."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgekit.artifact import Frozen
from edgekit.errors import ModelError, Problem
from edgekit.model_config import read_config
from edgekit.nn.load import check_folder, load_checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["FAMILIES", "Greedy", "generate", "greedy_of", "load_seq2seq", "obstacles"]

FAMILIES = ("bart", "marian", "mbart", "mt5", "pegasus", "t5")
UNUSED = ("no_repeat_ngram_size", "min_length", "min_new_tokens", "repetition_penalty", "encoder_no_repeat_ngram_size")


class Greedy(Frozen):
    """What decides a greedy answer besides the weights: token ids, as generation_config.json names them.

    `start` is read first, `first` and `last` are forced there where they are named (`last` at the limit of tokens),
    one of `end` ends the answer, `never` are not taken.
    """

    start: int
    end: tuple[int, ...]
    first: int | None = None
    last: int | None = None
    never: tuple[int, ...] = ()


def load_seq2seq(folder: Path, *, device: str = "cpu") -> PreTrainedModel:
    """An encoder-decoder model in float32, eval mode. No code of the folder is run.

    Raises ModelError for a pickle, missing weights, or an architecture that is none of FAMILIES.
    """
    check_folder(folder)
    for problem in obstacles(folder):
        raise ModelError(f"{folder}: {problem.what}", hint=problem.hint)
    return load_checkpoint(folder, "text2text-generation", device=device)[0]


def obstacles(folder: Path) -> list[Problem]:
    """Why a folder holds no encoder-decoder model that can be exported; by its config."""
    kind = read_config(folder)["model_type"]
    if kind in FAMILIES:
        return []
    return [Problem("", f"no encoder-decoder model of type {kind!r}", f"one of {', '.join(FAMILIES)}")]


def greedy_of(model: PreTrainedModel) -> tuple[Greedy, tuple[str, ...]]:
    """The model's own settings, and notes on those that a greedy answer does without.

    Raises ModelError where no token is named that begins an answer.
    """
    told: Any = model.generation_config
    start = told.decoder_start_token_id if told.decoder_start_token_id is not None else told.bos_token_id
    if start is None:
        raise ModelError("no token begins an answer", hint="add decoder_start_token_id to generation_config.json")
    end = _ids(told.eos_token_id)
    bad = told.bad_words_ids or []
    single = {row[0] for row in bad if len(row) == 1} | set(told.suppress_tokens or ())
    greedy = Greedy(
        start=start,
        end=end,
        first=told.forced_bos_token_id,
        last=next(iter(_ids(told.forced_eos_token_id)), None),
        never=tuple(sorted(single - set(end))),
    )
    ignored = [name for name in UNUSED if getattr(told, name, None) not in (None, 0, 1.0)]
    ignored += ["bad_words_ids of several tokens"] if any(len(row) > 1 for row in bad) else []
    beams = [f"num_beams={told.num_beams}"] if (told.num_beams or 1) > 1 else []
    notes = [*beams, *ignored]
    text = f"generation_config.json asks for {', '.join(notes)}; answers are greedy and do without"
    return greedy, (text,) if notes else ()


def generate(model: PreTrainedModel, greedy: Greedy, ids: list[int], most: int) -> list[int]:
    """The tokens with which Transformers greedily answers `ids`, at most so many, without the one that begins them."""
    import torch
    from transformers import DynamicCache, EncoderDecoderCache, GenerationConfig

    model.generation_config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=most,
        decoder_start_token_id=greedy.start,
        eos_token_id=list(greedy.end) or None,
        pad_token_id=greedy.end[0] if greedy.end else 0,
        forced_bos_token_id=greedy.first,
        forced_eos_token_id=greedy.last,
        suppress_tokens=list(greedy.never) or None,
    )
    given = torch.tensor([ids])
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())  # its own has as many layers as the encoder
    with torch.no_grad():
        found = cast("Any", model).generate(given, attention_mask=torch.ones_like(given), past_key_values=cache)
    return cast("list[int]", found[0, 1:].tolist())


def _ids(value: int | list[int] | None) -> tuple[int, ...]:
    """One id, several, or none."""
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)
