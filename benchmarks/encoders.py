"""`python -m benchmarks.encoders [--only PART] [--quick] [--json]`: encoders in files, beside the usual tools.

int8      int8.speedup_best, int8.min_vs_best_peer, int8.ort_median_vs_dynamic: int8 alone, the same weights, by runtime
chain     encoder.speedup_99, encoder.size_ratio_99, encoder.speedup_97 of banking77, home_intents and wnut17
peers     peers.dominated_points: size, speed and score of other tools' files of the chain's teacher, beside ours
pruning   prune.seconds_to_1_8x, latency.prediction_error, lowrank.error_vs_svd: smaller without training
tasks     task.NAME.drop: every kind of task by its own recipe on real data

1x is ONNX Runtime fp32, fully optimized, of the fine-tuned teacher; two threads; interleaved in one run. Every part's
figures are kept as soon as they are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from benchmarks import encoders_chain, encoders_int8, encoders_peers, encoders_pruning, encoders_tasks
from benchmarks.encoders_bed import Bed, open_bed
from benchmarks.record import Figure, arguments, keep

PARTS: Mapping[str, Callable[[Bed], Iterator[Figure]]] = {
    "chain": encoders_chain.figures,
    "int8": encoders_int8.figures,
    "peers": encoders_peers.figures,
    "pruning": encoders_pruning.figures,
    "tasks": encoders_tasks.figures,
}


def main() -> None:
    options = arguments(__doc__ or "", parts=tuple(PARTS))
    bed = open_bed(quick=options.quick)
    for name in options.only or PARTS:
        bed.progress.head(name)
        for figure in PARTS[name](bed):
            keep("encoders", [figure], options)


if __name__ == "__main__":
    main()
