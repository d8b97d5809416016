"""Letter case for a WordPiece tokenizer that has none: a capital letter at a word's start becomes a mark before it.

"Paris" is read as "ˇparis", and each token that can start a word is in the vocabulary a second time with the mark
before it. So a marked word's longest first token is the longest one of the word without a mark, with the mark before
it, and all that follow are the same: texts are split where they were split before, into as many tokens. (Two kinds are
not: words of 101 letters, which were unknown, since with its mark one of 100 has to be allowed; and texts that hold the
mark itself.) Only a word's first letter counts, of letters that more than one-letter tokens start with. A word starts
by BERT's rules (`BertPreTokenizer`): after a space, or at punctuation.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from edgekit.errors import StageError
from edgekit.nn.vocabulary import MARK, tokens_of

__all__ = ["Cased", "give_case"]

BETWEEN_WORDS = r"(?<![^\s\p{P}$+<=>^`|~])"  # BERT takes ASCII's symbols for punctuation too
Spec = dict[str, Any]


@dataclass(frozen=True)
class Cased:
    """A tokenizer with marks. Its new tokens have ids from `first` on; `origins`: ids of the tokens that they are with
    a mark."""

    spec: Spec
    first: int
    origins: list[int]

    @property
    def size(self) -> int:
        """Rows that a table needs."""
        return self.first + len(self.origins)


def give_case(spec: Spec) -> Cased:
    """The tokenizer with marks. Raises StageError for one that is no uncased WordPiece tokenizer by BERT's rules."""
    from tokenizers import Regex, Tokenizer, normalizers

    _check(spec)
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    old, starts = tokens_of(spec), _starts(spec)
    capitals = _capitals(tokenizer.normalizer, {token[0] for token in starts if len(token) > 1})
    rules = [normalizers.Replace(Regex(BETWEEN_WORDS + capital), MARK + small) for small, capital in capitals.items()]
    accents = [normalizers.NFD()] if _strips_accents(spec) else []  # as BERT's rules begin: É is E with an accent
    tokenizer.normalizer = normalizers.Sequence([*accents, *rules, tokenizer.normalizer])
    cased: Spec = json.loads(tokenizer.to_str())
    doubled, first = [token for token in starts if token[0] in capitals], max(old.values()) + 1
    if not doubled:
        what = "no token of this tokenizer can start a word with a letter that has a capital"
        raise StageError(what, hint="leave the step out")
    new = {MARK + token: first + place for place, token in enumerate(doubled)}
    cased["model"]["vocab"] = old | new  # with added tokens: of others the library numbers anew by what is in here
    cased["model"]["max_input_chars_per_word"] += 1
    return Cased(cased, first, [old[token] for token in doubled])


def _check(spec: Spec) -> None:
    if any(token["normalized"] for token in spec["added_tokens"]):
        what = "tokens were added to this tokenizer that are looked for in normalized text, where marks would hide them"
        raise StageError(what, hint="add them with normalized=False, or leave the step out")
    model, normalizer, pre = spec["model"]["type"], spec["normalizer"] or {}, spec["pre_tokenizer"] or {}
    marked = any(token.startswith(MARK) for token in tokens_of(spec))
    if marked or (normalizer.get("type") == "BertNormalizer" and not normalizer["lowercase"]):
        raise StageError("this tokenizer tells letter case already", hint="leave the step out")
    if (model, normalizer.get("type"), pre.get("type")) != ("WordPiece", "BertNormalizer", "BertPreTokenizer"):
        what = f"letter case is given to uncased WordPiece tokenizers by BERT's rules, and this one is {model}"
        raise StageError(f"{what} with others" if model == "WordPiece" else what, hint="leave the step out")


def _starts(spec: Spec) -> list[str]:
    """Tokens that can start a word, by id; not the added ones, which are found as they are written."""
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
