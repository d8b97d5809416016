"""`python -m benchmarks.encoders_pruning [--quick] [--json]`: pruning by measured costs, and low rank.

prune.seconds_to_1_8x     wall time of `edgekit trim` and `edgekit export` in fresh processes, the measurement of the
                          costs among it; and how fast the file then is against 1x, and what accuracy it loses
latency.prediction_error  predicted against measured time of 30 random structures, both relative to the whole encoder
lowrank.error_vs_svd      how many times larger the logits' error of plain SVD is than that of the activation-aware
                          factorization with as many weights
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Literal

import numpy as np

from benchmarks.encoders_bed import THREADS, Bed, open_bed
from benchmarks.record import Figure, arguments, data_folder, keep
from edgekit.artifact import Artifact
from edgekit.bench import measure
from edgekit.evaluate import judge, paired_drop, predict, predict_torch
from edgekit.formats.cost_probes import Probes, random_structures
from edgekit.formats.cost_table import CostTable, load_costs
from edgekit.nn.load import load_classifier
from edgekit.rounds import over_rounds
from edgekit.runtimes.base import Workload
from edgekit.stages.export import Export
from edgekit.stages.factorize import Factorize
from edgekit.stages.trim import COSTS

__all__ = ["figures"]

SHARE = 0.6  # of the latency of the whole encoder, exported by edgekit; 1x is exported as it is
STRUCTURES = 30
METHODS: tuple[Literal["svd", "whitened", "curvature"], ...] = ("svd", "whitened", "curvature")
BUDGET = 0.5  # of the weights of attention and FFN, for low rank


def main() -> None:
    options = arguments(__doc__ or "")
    bed = open_bed(quick=options.quick)
    for figure in figures(bed):
        keep("encoders", [figure], options)


def figures(bed: Bed) -> Iterator[Figure]:
    """The figures of this part, each as soon as it is there."""
    base = bed.stage("export", Export(format="onnx", rewrite=False), bed.teacher.path, "fp32")
    trimmed, seconds = _trim(bed)
    yield from _trimmed_figures(bed, base, trimmed, seconds)
    yield _prediction(bed, load_costs(bed.folder / "trimmed" / COSTS))
    yield _low_rank(bed)


def _trim(bed: Bed) -> tuple[Artifact, dict[str, float]]:
    """The trimmed file, made by the commands that a user gives, in a store that knows nothing; and their seconds."""
    seconds = {}
    data = f"{data_folder()}/banking77/train.csv"
    store = bed.folder / f"trim-store-{time.time_ns()}"
    common = ["--max-length", str(bed.task.max_length), "--threads", str(THREADS), "--store", str(store)]
    source = bed.teacher.path
    options = {
        "trim": ["--share", str(SHARE), "--inference-threads", str(THREADS), "--unlabeled", data],
        "export": ["--unlabeled", data],
    }
    for stage, own in options.items():
        out = bed.folder / {"trim": "trimmed", "export": "trimmed-onnx"}[stage]
        shutil.rmtree(out, ignore_errors=True)
        command = [sys.executable, "-m", "edgekit.cli.main", stage, str(source), str(out), *own, *common]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds[stage] = time.perf_counter() - start
        source = out
    shutil.rmtree(store)
    return Artifact.open(source), seconds


def _trimmed_figures(bed: Bed, base: Artifact, trimmed: Artifact, seconds: dict[str, float]) -> Iterator[Figure]:
    test = bed.tables["test"]
    workload = Workload(threads=THREADS, rounds=2 if bed.quick else 9, budget=0, throughput_batches=())
    found = measure({"1x": base, "trimmed": trimmed}, "1x", test, workload).measurements["trimmed"]
    speed = over_rounds(found.rounds)
    judged = [judge(file, predict(file, test, threads=THREADS), test) for file in (base, trimmed)]
    right = [np.asarray(one.answers == one.truth) for one in judged]
    drop = paired_drop(right[0], right[1])
    told = f"{speed.value:.2f}x faster, accuracy {-drop.value:+.4f}; share {SHARE}, lengths of Banking77, batch 1"
    parts = ", ".join(f"{stage} {took:.0f} s" for stage, took in seconds.items())
    against = "teacher in ONNX Runtime fp32"
    total = sum(seconds.values())
    yield Figure(figure="prune.seconds_to_1_8x", value=total, unit="s", conditions=f"{told}; {parts}", against=against)
    yield Figure(
        figure="prune.speedup",
        value=speed.value,
        low=speed.low,
        high=speed.high,
        unit="x",
        against=against,
        n=len(found.rounds),
        conditions=f"{THREADS} threads, no training",
    )
    yield Figure(
        figure="prune.accuracy_drop",
        value=drop.value,
        low=drop.low,
        high=drop.high,
        unit="1",
        against=against,
        n=len(test),
    )


def _prediction(bed: Bed, table: CostTable) -> Figure:
    """Times are relative to the whole encoder's in the same sitting: drift between sittings is not the table's."""
    teacher = bed.teacher
    model = load_classifier(teacher.path)
    probes = Probes.of(model, teacher.path, bed.task, bed.tables["train"], threads=THREADS)
    structures = random_structures(table.widths, 32, 6 if bed.quick else STRUCTURES, seed=1000)
    found = probes.time(structures, bed.progress)
    predicted = np.array([table.predict(structure) / table.predict(table.widths.whole) for structure in structures])
    measured = np.array([found.shares[str(number)] for number in range(len(structures))])
    errors = np.abs(predicted / measured - 1)
    spread = f"median {np.median(errors):.3f}, largest {errors.max():.3f}"
    told = f"{spread}; shares {measured.min():.2f} to {measured.max():.2f}; table fitted to {table.measured} others"
    return Figure(
        figure="latency.prediction_error",
        value=float(errors.mean()),
        unit="1",
        against="measured",
        n=len(structures),
        conditions=told,
    )


def _low_rank(bed: Bed) -> Figure:
    test, teacher = bed.tables["test"], bed.teacher
    wanted = predict_torch(teacher, test, threads=THREADS).logits
    errors, accuracies = {}, {}
    for method in METHODS:
        config = Factorize(method=method, modules=("attention", "ffn"), budget=BUDGET, versus="none")
        found = bed.stage("factorize", config, teacher.path, f"low-rank-{method}")
        predictions = predict_torch(found, test, threads=THREADS)
        errors[method] = float(np.sqrt(np.mean((predictions.logits - wanted) ** 2)))
        accuracies[method] = judge(found, predictions, test).metrics["accuracy"]
    told = ", ".join(f"{m}: error {errors[m]:.3f}, accuracy {accuracies[m]:.4f}" for m in errors)
    return Figure(
        figure="lowrank.error_vs_svd",
        value=errors["svd"] / errors["curvature"],
        unit="x",
        against="truncated SVD, ranks by the same budget",
        n=len(test),
        conditions=f"root mean square of the logits' differences, {BUDGET:g} of attention and FFN; {told}",
    )


if __name__ == "__main__":
    main()
