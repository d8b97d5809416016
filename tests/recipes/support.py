"""Small data and quick recipes, so that whole chains run in seconds on a tiny model."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np

CUES = {"lost": "lost card", "rate": "rate cash", "top": "top up"}
FILLER = ("please", "my", "is", "the", "where", "when", "not", "still", "money", "waiting")
QUICK = "workload: {batch: 1, rounds: 2, budget: 0, items: 4, seconds: 0.02, warmup: 2, throughput_batches: [2]}"


def write_rows(path: Path, count: int, seed: int, *, pairs: bool = False) -> Path:
    """Rows whose label is told by two words, among others."""
    rng = np.random.default_rng(seed)
    labels = list(CUES)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "second", "category"] if pairs else ["text", "category"])
        for row in range(count):
            label = labels[row % len(labels)]
            words = [*rng.choice(FILLER, int(rng.integers(2, 8))), CUES[label]]
            rng.shuffle(words)
            second = [" ".join(rng.choice(FILLER, 3))] if pairs else []
            writer.writerow([" ".join(words), *second, label])
    return path


def write_data(folder: Path, *, pairs: bool = False) -> dict[str, str]:
    """train, validation and test files; the params that name them."""
    sizes = {"train": 90, "validation": 24, "test": 30}
    files = {n: str(write_rows(folder / f"{n}.csv", s, i, pairs=pairs)) for i, (n, s) in enumerate(sizes.items())}
    return {**files, "max_length": "32", "label_column": "category", **({"pair_column": "second"} if pairs else {})}


def quick_recipe(source: Path, target: Path) -> Path:
    """A copy of a recipe that measures briefly."""
    text, replaced = re.subn(r"^workload: \{batch: [^}]+\}.*$", QUICK, source.read_text(), flags=re.MULTILINE)
    assert replaced == 1
    target.write_text(text)
    return target
