"""Files measured side by side, without a recipe: what `edgekit bench` does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from edgekit.artifact import Artifact
from edgekit.data.table import Table
from edgekit.errors import UsageError
from edgekit.measuring import Subject, make_report, write_report
from edgekit.progress import Progress
from edgekit.report.schema import Report
from edgekit.runtimes.base import Workload

__all__ = ["bench_report"]


def bench_report(
    paths: Sequence[Path], baseline: Path | None, table: Table, workload: Workload, out: Path | None, progress: Progress
) -> Report:
    """Latency, and where the table has labels accuracy, of exported folders against `baseline` (default: the first).

    Raises UsageError for two folders of one name, StoreError for a folder that edgekit did not write.
    """
    start = time.perf_counter()
    first = baseline or paths[0]
    folders = list(dict.fromkeys(path.resolve() for path in (first, *paths)))
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names):
        raise UsageError(f"folders of one name: {', '.join(names)}", hint="rename one: figures are told apart by name")
    artifacts = {folder.name: Artifact.open(folder) for folder in folders}
    subjects = {name: Subject(artifact, str(artifact.path)) for name, artifact in artifacts.items()}
    report, bench = make_report("bench", subjects, folders[0].name, table, workload, (), progress=progress, start=start)
    if out is not None:
        write_report(report, bench, out)
    return report
