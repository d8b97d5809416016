"""`python -m benchmarks.decoders [--only PART] [--quick] [--json]`: language models in files, beside the usual tools.

kquants    gguf.kld_ratio_q4km, _q2k, _autoround: KL divergence at the sizes of llama.cpp's mixes and AutoRound's
identical  gguf.identical_tensors: the same bytes as llama.cpp's quantizer
grids      int4.format_gap, _q4_1: the same integers in two formats; int4.kld_ratio_builder, _olive, _olive_gptq
cost       gguf.time_ratio, _q4_k_m, gguf.peak_rss_bytes: safetensors to GGUF, a true-shape model of 1.1e9 weights
prune      prune30.kld_ratio, prune30.decode_speedup: 30% pruned and relearned, against fewer bits in as many bytes
choice     format.choice_gap: the file that a run names against the fastest of all that can be made

Every part's figures are kept as soon as they are there. Peers run in environments of their own, below build/peers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks import (
    decoders_choice,
    decoders_cost,
    decoders_grids,
    decoders_identical,
    decoders_kquants,
    decoders_prune,
)
from benchmarks.decoders_bed import Bed, open_bed
from benchmarks.record import Figure, arguments, keep

PARTS: Mapping[str, Callable[[Bed, Path], Iterator[Figure]]] = {
    "kquants": decoders_kquants.figures,
    "identical": decoders_identical.figures,
    "grids": decoders_grids.figures,
    "cost": decoders_cost.figures,
    "prune": decoders_prune.figures,
    "choice": decoders_choice.figures,
}


def main() -> None:
    options = arguments(__doc__ or "", parts=tuple(PARTS))
    bed = open_bed(quick=options.quick)
    for name in options.only or PARTS:
        bed.progress.head(name)
        with tempfile.TemporaryDirectory() as work:
            for figure in PARTS[name](bed, Path(work)):
                keep("decoders", [figure], options)


if __name__ == "__main__":
    main()
