"""Schemes of entity labels: BIOES, BMES, BILOU and their kin become BIO."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from edgekit.errors import Problem

__all__ = ["TAGS", "bio_name", "to_bio"]

OUTSIDE = "O"
SCHEMES = {"BIOES": "BIES", "BMES": "BMES", "BILOU": "BILU", "BMEWO": "BMEW"}  # by the letters of their tags
BIO = {"S": "B", "U": "B", "W": "B", "M": "I", "E": "I", "L": "I"}  # the first three: an entity of one word
GOES_ON, LAST = set("IMEL"), set("EL")
TAGS = (  # what to do, for error texts
    "labels are O, B-TYPE for an entity's first word, and I-TYPE for its others; of other schemes "
    f"{', '.join(SCHEMES)} are read, where all labels are of one"
)


def bio_name(label: str) -> str:
    """The label in BIO; one of no other scheme stays."""
    tag = _tag(label)
    return BIO.get(tag, tag) + label[1:] if tag else label


def to_bio(rows: Sequence[str]) -> tuple[list[str], list[Problem]]:
    """The labels of each row's words in BIO, where those of all rows are of one other scheme; and the rows that break
    it, from 1. As they are where they are of none.

    An entity may lack its end at the end of a row, and its beginning at the beginning: texts are cut. Where nothing is
    labelled E- or L-, entities end without (CLUENER's BIOS).
    """
    tags = {tag for row in rows for label in row.split(" ") if (tag := _tag(label)) != OUTSIDE}
    if tags <= set("BI") or not any(tags <= set(letters) for letters in SCHEMES.values()):
        return list(rows), []
    ends = bool(tags & LAST)
    broken = [
        Problem(f"row {number}", what)
        for number, row in enumerate(rows, 1)
        if (what := _break(row.split(" "), ends=ends))
    ]
    return [" ".join(map(bio_name, row.split(" "))) for row in rows], broken


def _tag(label: str) -> str:
    """B of B-person, O of O; empty for what has none."""
    return label[0] if label == OUTSIDE or (label[1:2] == "-" and label[2:]) else ""


def _break(labels: Sequence[str], *, ends: bool) -> str:
    """The first label that cannot follow the one before it; empty where all can. `ends`: E- or L- is a last word."""
    for at, (before, label) in enumerate(pairwise(labels), 2):
        open_ = _tag(before) == "B" or (_tag(before) in ("I", "M") and ends)
        within = _tag(before) in ("B", "I", "M") and before[1:] == label[1:]
        if (not within) if _tag(label) in GOES_ON else open_:
            return f"word {at}: {label} after {before}"
    return ""
