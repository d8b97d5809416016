"""Whether the file that a run of `llm-quantize` names is the fastest there is.

The recipe makes files of several formats, measures them and names one: the fastest within its gate's limits on quality.
Then every type and format that edgekit writes is made and timed, by turns and for longer; of those within the same
limit on the KL divergence the fastest is what the named one is held against.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.decoders_bed import Bed
from benchmarks.record import Figure
from edgekit.api import run
from edgekit.artifact import Artifact
from edgekit.bench_lm import measure_lm
from edgekit.evaluate_lm import reference_of, score_windows
from edgekit.report.sentences import headline
from edgekit.runtimes import Workload
from edgekit.stages.lm_export import LmExport

__all__ = ["figures"]

FIGURE = "format.choice_gap"
RECIPE = "llm-quantize"
LIMIT = 0.05  # KL divergence, nats a token: the recipe's own
ROUNDS, AGAIN = 8, 24  # of all files, and of the last two
TYPES = ("f16", "q6_k", "q5_k_m", "q5_0", "q4_k_m", "q4_0", "q4_1", "iq4_nl", "q3_k_m", "q2_k")
EXPORTS = {
    **{f"llama-{kind}": LmExport.model_validate({"type": kind}) for kind in TYPES},
    **{
        f"genai-builder-{kind}": LmExport.model_validate({"format": "onnx-genai", "precision": kind})
        for kind in ("fp32", "int8", "int4")
    },
}


def figures(bed: Bed, scratch: Path) -> Iterator[Figure]:
    texts = {name: scratch / f"{name}.txt" for name in ("seen", "unseen")}
    texts["seen"].write_text("\n".join(bed.seen.values()), encoding="utf-8")
    texts["unseen"].write_text("\n".join(bed.unseen.values()), encoding="utf-8")
    params = {"model": str(bed.model), "text": str(texts["seen"]), "test": str(texts["unseen"]), "max_kld": str(LIMIT)}
    out, store = scratch / "out", scratch / "store"
    report = run(RECIPE, params, out, store=store, progress=bed.progress)
    picked = headline(report)
    assert picked is not None
    files = {entry.id: Artifact.open(out / entry.path) for entry in report.deployables}
    for name, config in EXPORTS.items():
        files[name] = bed.stage("lm-export", config, bed.model, scratch / name, store)
    fit = _within(bed, files, scratch)
    yield _gap(bed, picked.id, {name: files[name] for name in fit}, len(files))


def _within(bed: Bed, files: Mapping[str, Artifact], scratch: Path) -> list[str]:
    reference = reference_of(bed.original, bed.held_out, scratch)
    found = {name: score_windows(file, bed.held_out, reference=reference).metrics for name, file in files.items()}
    return [name for name, metrics in found.items() if metrics["kld"] <= LIMIT]


def _gap(bed: Bed, picked: str, files: Mapping[str, Artifact], tried: int) -> Figure:
    """All at once find the fastest; it and the picked one are then timed anew: the best of many is partly luck."""
    several = measure_lm(files, picked, bed.held_out, _workload(bed, ROUNDS), progress=bed.progress)
    rates = {name: speed.decode_per_second.value for name, speed in several.speeds.items()}
    best = max(rates, key=rates.__getitem__)
    told = f"picked {picked}, fastest {best}; tokens a second of all: " + _listed(rates)
    against = f"the fastest of {len(files)} files within {LIMIT} nats ({tried} were made)"
    rounds = several.decode.conditions.rounds
    if best == picked:
        return Figure(figure=FIGURE, value=0.0, unit="1", against=against, n=rounds, conditions=told)
    pair = {name: files[name] for name in (picked, best)}
    again = measure_lm(pair, picked, bed.held_out, _workload(bed, AGAIN), progress=bed.progress)
    faster = again.decode.measurements[best].speedup
    assert faster is not None
    return Figure(
        figure=FIGURE,
        value=1 - 1 / faster.value,
        low=1 - 1 / faster.low,
        high=1 - 1 / faster.high,
        unit="1",
        against=against,
        n=again.decode.conditions.rounds,
        conditions=told,
    )


def _workload(bed: Bed, rounds: int) -> Workload:
    return Workload(rounds=4 if bed.quick else rounds)


def _listed(rates: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {rates[name]:,.0f}" for name in sorted(rates, key=rates.__getitem__, reverse=True))
