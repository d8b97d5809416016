"""Exact match and F1 of an answer cut from a text: SQuAD's, and for Chinese CMRC2018's.

Sources: Rajpurkar et al. 2016 (arXiv 1606.05250), evaluate-v1.1.py; Cui et al. 2019 (arXiv 1810.07366),
cmrc2018_evaluate.py.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher

__all__ = ["is_chinese", "span_scores"]

HAN = "\u4e00-\u9fa5"
ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = re.compile(r"[-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』]")  # the list of CMRC2018's script
PIECES = re.compile(rf"[{HAN}]|[^\W{HAN}]+(?:[.,][^\W{HAN}]+)*|[^\w\s]")  # in place of nltk's tokenizer


def span_scores(question: str, right: Sequence[str], found: str) -> tuple[float, float]:
    """F1 and exact match (0 or 1) of `found`, each with the one of the `right` answers that it is nearest to."""
    score = _chinese if is_chinese(question) else _english
    scores = [score(answer, found) for answer in right]
    return max((f1 for f1, _ in scores), default=0.0), max((exact for _, exact in scores), default=0.0)


def is_chinese(question: str) -> bool:
    """Whether it has more Chinese characters than other words."""
    pieces = PIECES.findall(question)
    return 2 * sum(bool(re.match(f"[{HAN}]", piece)) for piece in pieces) > len(pieces)


def _english(right: str, found: str) -> tuple[float, float]:
    """F1 over words, wherever they stand; lower case, without punctuation and articles."""
    wanted, words = _words(right), _words(found)
    same = sum((Counter(wanted) & Counter(words)).values())
    return 2 * same / max(1, len(wanted) + len(words)), float(wanted == words)


def _words(text: str) -> list[str]:
    plain = "".join(character for character in text.lower() if character not in string.punctuation)
    return ARTICLES.sub(" ", plain).split()


def _chinese(right: str, found: str) -> tuple[float, float]:
    """F1 over the longest piece that both have, in Chinese characters and other words."""
    wanted, given = (PUNCTUATION.sub("", text.lower().strip()) for text in (right, found))
    pieces, own = PIECES.findall(wanted), PIECES.findall(given)
    same = SequenceMatcher(None, pieces, own, autojunk=False).find_longest_match().size
    return 2 * same / max(1, len(pieces) + len(own)), float(wanted == given)
