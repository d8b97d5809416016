"""Entities in a row of IOB2 labels, and the F1 of finding them, by seqeval's default definition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

import numpy as np
from numpy.typing import NDArray

from edgekit.data.tags import TAGS
from edgekit.errors import DataError, Problem

__all__ = ["OUTSIDE", "Entity", "entities", "entity_counts", "entity_f1", "entity_metrics", "label_order", "no_outside"]

Entity = tuple[str, int, int]  # type, first word, last word
OUTSIDE = "O"


def label_order(names: Set[str], where: str) -> tuple[str, ...]:
    """O, then of each type its B- and I-.

    Raises DataError for labels that are not IOB2, or where there is no type. `where`: for error texts.
    """
    strange = sorted(name for name in names if name != OUTSIDE and not name.startswith(("B-", "I-")))
    if strange:
        shown = ", ".join(repr(name) for name in strange[:5])
        if all(name.lstrip("-").isdigit() for name in names):
            hint = (
                "write the labels' names (O, B-TYPE, I-TYPE) in their place, or read the data from the hub: it has them"
            )
            raise DataError(f"{where}: labels that are numbers without names: {shown}", hint=hint)
        raise DataError(f"{where}: labels that are not IOB2: {shown}", hint=TAGS)
    types = sorted({name[2:] for name in names if name != OUTSIDE})
    if not types:
        raise DataError(f"{where}: no word is labelled as part of an entity")
    return (OUTSIDE, *(f"{tag}-{name}" for name in types for tag in "BI"))


def no_outside(labels: Sequence[str]) -> Problem | None:
    """Why these labels of a model cannot mark words, where there are some without O; None where they can."""
    if not labels or OUTSIDE in labels:
        return None
    what = f"the labels of its head are no tagger's: {', '.join(labels[:5])}, without O for the words between"
    hint = "name them (O, B-TYPE, I-TYPE) in id2label and label2id of its config.json, or fine-tune it"
    return Problem("model", what, hint)


def entities(labels: Sequence[str]) -> list[Entity]:
    """The entities of one sentence of IOB2 labels ("B-person", "I-person", "O").

    As CoNLL's conlleval, and seqeval outside of its strict mode, read them: an I- that follows no entity of its type
    begins one. Source: Ramshaw and Marcus 1995; seqeval.metrics.sequence_labeling.get_entities.
    """
    return list(_entities(labels))


def _entities(labels: Sequence[str]) -> Iterator[Entity]:
    kind, first = "", -1
    for at, label in enumerate([*labels, OUTSIDE]):
        tag, _, name = label.partition("-")
        goes_on = first >= 0 and tag == "I" and name == kind
        if goes_on:
            continue
        if first >= 0:
            yield kind, first, at - 1
        kind, first = (name, at) if tag in ("B", "I") else ("", -1)


def entity_counts(truth: Sequence[str], predicted: Sequence[str]) -> tuple[int, int, int]:
    """Entities of one sentence that are found with type and both ends; that are predicted; that there are."""
    right, found = set(entities(truth)), set(entities(predicted))
    return len(right & found), len(found), len(right)


def entity_metrics(counts: NDArray[np.float64]) -> dict[str, float]:
    """Micro-averaged F1, precision and recall of `entity_counts` (sentences, 3); 0 where there is nothing to find."""
    hits, found, there = counts.sum(axis=0).tolist()
    precision, recall = hits / max(found, 1.0), hits / max(there, 1.0)
    f1 = 2 * hits / max(found + there, 1.0)
    return {"entity_f1": f1, "entity_precision": precision, "entity_recall": recall}


def entity_f1(evidence: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """F1 of samples, (samples,); `evidence` (sentences, 3); `counts` (samples, sentences): how often each holds one."""
    hits, found, there = (counts @ evidence).T
    return np.asarray(2 * hits / np.maximum(found + there, 1.0), dtype=np.float64)
