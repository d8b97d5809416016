"""Letter case for a WordPiece tokenizer that has none: a capital letter at a word's start becomes a mark before it.

"Paris" is read as "ˇparis", and each token that can start a word is in the vocabulary a second time with the mark
before it. So a marked word's longest first token is the longest one of the word without a mark, with the mark before
it, and all that follow are the same: every text is split where it was split before, into as many tokens. Only a word's
first letter counts, of letters that more than one-letter tokens start with. A word starts by BERT's rules
(`BertPreTokenizer`): after a space, or at punctuation.
"""

from __future__ import annotations

import json
from typing import Any

from edgekit.errors import StageError
from edgekit.nn.vocabulary import MARK, tokens_of

__all__ = ["give_case"]

BETWEEN_WORDS = r"(?<![^\s\p{P}$+<=>^`|~])"  # BERT takes ASCII's symbols for punctuation too
Spec = dict[str, Any]


def give_case(spec: Spec) -> tuple[Spec, list[int]]:
    """The tokenizer with marks, and the ids of the tokens whose rows the new ones start from; new ids follow the old.

    Raises StageError for a tokenizer that is no uncased WordPiece one by BERT's rules.
    """
    from tokenizers import Regex, Tokenizer, normalizers

    _check(spec)
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    vocabulary: dict[str, int] = spec["model"]["vocab"]
    starts = _starts(spec)
    capitals = _capitals(tokenizer.normalizer, {token[0] for token in starts if len(token) > 1})
    rules = [normalizers.Replace(Regex(BETWEEN_WORDS + capital), MARK + small) for small, capital in capitals.items()]
    accents = [normalizers.NFD()] if _strips_accents(spec) else []  # as BERT's rules begin: É is E with an accent
    tokenizer.normalizer = normalizers.Sequence([*accents, *rules, tokenizer.normalizer])
    cased: Spec = json.loads(tokenizer.to_str())
    doubled = [token for token in starts if token[0] in capitals]
    first = max(tokens_of(spec).values()) + 1
    new = {MARK + token: first + place for place, token in enumerate(doubled)}
    cased["model"]["vocab"] = vocabulary | new
    cased["model"]["max_input_chars_per_word"] += 1
    return cased, [vocabulary[token] for token in doubled]


def _check(spec: Spec) -> None:
    model, normalizer, pre = spec["model"]["type"], spec["normalizer"] or {}, spec["pre_tokenizer"] or {}
    marked = any(token.startswith(MARK) for token in tokens_of(spec))
    if marked or (normalizer.get("type") == "BertNormalizer" and not normalizer["lowercase"]):
        raise StageError("this tokenizer tells letter case already", hint="leave the step out")
    if (model, normalizer.get("type"), pre.get("type")) != ("WordPiece", "BertNormalizer", "BertPreTokenizer"):
        what = f"letter case is given to uncased WordPiece tokenizers by BERT's rules, and this one is {model}"
        raise StageError(f"{what} with others" if model == "WordPiece" else what, hint="leave the step out")


def _starts(spec: Spec) -> list[str]:
    """Tokens that can start a word, by id; not the added ones, which are found before anything is normalized."""
    added = {token["content"] for token in spec["added_tokens"]}
    model = spec["model"]
    prefix = model["continuing_subword_prefix"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return [token for token in tokens if token not in added and not token.startswith(prefix)]


def _capitals(normalizer: Any, letters: set[str]) -> dict[str, str]:
    """Of the letters that have a capital which the normalizer makes small: that capital.

    One literal rule a letter: a class of letters in a rule takes tens of times as long.
    """
    pairs = {small: small.upper() for small in sorted(letters)}
    return {small: big for small, big in pairs.items() if big != small and normalizer.normalize_str(big) == small}


def _strips_accents(spec: Spec) -> bool:
    """Source: transformers and tokenizers, `BertNormalizer`: without a value, where it lowercases."""
    chosen = spec["normalizer"]["strip_accents"]
    return bool(spec["normalizer"]["lowercase"] if chosen is None else chosen)
