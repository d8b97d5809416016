"""The splits of a recipe: what was given, and what is cut from the training data where it was not."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from edgekit.data.load import Columns, load_table
from edgekit.data.table import SplitName, Table
from edgekit.errors import DataError

__all__ = ["Splits", "load_splits"]

HELD_OUT = 0.1  # share of the training rows that stands in for a missing validation set
SEED = 0


@dataclass(frozen=True)
class Splits:
    """Tables by split, and what the user should know about where they came from."""

    tables: Mapping[SplitName, Table]
    notes: tuple[str, ...] = ()


def load_splits(sources: Mapping[SplitName, str], columns: Columns, *, must_validate: bool = True) -> Splits:
    """Load every split that is given. A missing validation set is held out of the training rows, class by class; a
    missing test set is the validation set, and a note says so.

    Raises DataError for what cannot be read, for a validation or test label that the training data do not have, and
    where too few training rows are there to hold any out, if something `must_validate`.
    """
    tables = {name: _load(name, source, columns) for name, source in sources.items() if source}
    notes = []
    if "train" in tables and "validation" not in tables:
        kept, held = _hold_out(tables["train"])
        if not len(held) and must_validate:
            what = f"{tables['train'].name}: too few rows to hold any out for validation"
            raise DataError(what, hint="give --validation FILE")
        if len(held):
            tables |= {"train": kept, "validation": held}
            each = {"class": " of each label", "answers": " of the contexts"}.get(columns.label_kind, "")
            share = f"{len(held)} rows ({HELD_OUT:.0%}{each})"
            notes.append(f"no validation data given: {share} are held out of the training data")
    if "test" not in tables and "validation" in tables:
        tables["test"] = tables["validation"]
        notes.append("no test data given: the figures are of the validation data, which also chose the weights")
    if not tables.keys() & {"train", "validation", "unlabeled"} and "test" in tables:
        tables["unlabeled"] = replace(tables["test"], labels=None)
        notes.append("no other data given: exports are compared with torch on the test texts")
    if "train" in tables:
        _check_labels(tables)
    return Splits(tables=tables, notes=tuple(notes))


def _load(name: SplitName, source: str, columns: Columns) -> Table:
    if name == "unlabeled":
        columns = columns.model_copy(update={"label": ""})
    return load_table(source, columns, split="train" if name == "unlabeled" else name)


def _hold_out(train: Table) -> tuple[Table, Table]:
    if train.label_kind == "answers":
        return _hold_out_contexts(train)
    groups: dict[str, list[int]] = defaultdict(list)
    for row, label in enumerate(train.labels or [""] * len(train)):
        groups[label if train.label_kind == "class" else ""].append(row)
    generator = random.Random(SEED)
    held: set[int] = set()
    for rows in groups.values():
        held.update(generator.sample(rows, int(len(rows) * HELD_OUT)))
    return _parted(train, held)


def _hold_out_contexts(train: Table) -> tuple[Table, Table]:
    """Whole contexts: a model that has seen one already is not asked about it."""
    contexts = list(dict.fromkeys(train.pairs or ()))
    held = set(random.Random(SEED).sample(contexts, int(len(contexts) * HELD_OUT)))
    return _parted(train, {row for row, context in enumerate(train.pairs or ()) if context in held})


def _parted(train: Table, held: set[int]) -> tuple[Table, Table]:
    kept = [row for row in range(len(train)) if row not in held]
    return train.take(kept), train.take(sorted(held))


def _check_labels(tables: Mapping[SplitName, Table]) -> None:
    known = tables["train"].classes
    names: tuple[SplitName, ...] = ("validation", "test")
    for name in names:
        table = tables.get(name)
        unknown = sorted(table.classes - known) if table else []
        if table and unknown:
            shown = ", ".join(repr(label) for label in unknown[:5])
            rows = sum(bool(table.take([row]).classes & set(unknown)) for row in range(len(table)))
            raise DataError(
                f"{table.name} ({name}): {len(unknown)} label(s) that the training data do not have: {shown} "
                f"({rows} rows)",
                hint="a label that was never trained cannot be predicted: add training examples, or drop those rows",
            )
