"""English sentences from all of the shared sets, in words: what a student of a tagger can learn from besides its data.

Nothing but their words is taken: a teacher marks them.
"""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["write_sentences"]

WORD = re.compile(r"[@#]?\w+(?:[-']\w+)*|[^\w\s]")
SENTENCE = re.compile(r"(?<=[.!?])\s+")
SHORTEST, LONGEST = 4, 60  # words
EASIEST = 8000  # Tatoeba's first lines are of two or three words


def write_sentences(sets: Path, out: Path, most: int | None = None) -> None:
    """About 70,000 sentences (or the first `most`), each once, in one order: jsonl with lists `tokens`."""
    found = {" ".join(words) for text in _texts(sets) if SHORTEST <= len(words := WORD.findall(text)) <= LONGEST}
    shuffled = sorted(found)
    random.Random(0).shuffle(shuffled)
    lines = (json.dumps({"tokens": sentence.split()}) for sentence in shuffled[:most])
    out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _texts(sets: Path) -> Iterator[str]:
    """Tatoeba, SNIPS, WikiText-2, STS-B, XQuAD, UCI's reviews, SIB-200, Banking77."""
    for line in (sets / "tatoeba_en_zh" / "cmn.txt").read_text(encoding="utf-8-sig").splitlines()[EASIEST:]:
        yield line.split("\t")[0]
    for line in (sets / "snips" / "train").read_text(encoding="utf-8").splitlines():
        yield " ".join(word.rsplit(":", 1)[0] for word in line.split(" <=> ")[0].split())
    for line in (sets / "wikitext2_raw" / "wiki.valid.raw").read_text(encoding="utf-8").splitlines():
        if not line.strip().startswith("="):
            yield from SENTENCE.split(line.replace(" @-@ ", "-").replace(" @,@ ", ",").replace(" @.@ ", "."))
    for name in ("train", "dev"):
        with (sets / "stsb" / f"stsb-en-{name}.csv").open(encoding="utf-8", newline="") as file:
            for first, second, _ in csv.reader(file):
                yield from (first, second)
    for document in json.loads((sets / "xquad" / "xquad.en.json").read_text(encoding="utf-8"))["data"]:
        for paragraph in document["paragraphs"]:
            yield from SENTENCE.split(paragraph["context"])
            yield from (asked["question"] for asked in paragraph["qas"])
    for name in ("amazon_cells", "imdb", "yelp"):
        for line in (sets / "uci_sentiment" / f"{name}_labelled.txt").read_text(encoding="utf-8").split("\n"):
            yield from SENTENCE.split(line.split("\t")[0])
    for name in ("train", "dev"):
        for line in (sets / "sib200" / "eng_Latn" / f"{name}.tsv").read_text(encoding="utf-8").splitlines()[1:]:
            yield from SENTENCE.split(line.split("\t")[-1])
    with (sets / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        yield from (row["text"] for row in csv.DictReader(file))
