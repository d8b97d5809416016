"""Speed of text-to-text models: decode steps and the encoder's reading of texts, timed as `bench_lm.py` times phases.

Texts have the data's own lengths. A decode step is the last token of one answer, to the text of median length, with the
keys and values of the text and of the tokens before in its cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgekit.artifact import Artifact
from edgekit.bench import Decided
from edgekit.bench_lm import Fed, LmBench, measure_steps
from edgekit.errors import UsageError
from edgekit.jobs import Inputs, Phase
from edgekit.progress import Progress
from edgekit.report.schema import LengthSummary, Speed
from edgekit.runtimes import Runtimes, Workload
from edgekit.runtimes.lm import SEQ2SEQ_RUNTIMES, inputs_of_rows
from edgekit.statistics import Interval
from edgekit.tasks.text_to_text import Ids
from edgekit.transports import LOCAL, Transport

__all__ = ["measure_seq2seq"]


def measure_seq2seq(
    deployables: Mapping[str, Artifact],
    baseline: str,
    sources: Sequence[Ids],
    targets: Sequence[Ids],
    workload: Workload,
    *,
    data: str = "data",
    progress: Progress | None = None,
    transport: Transport = LOCAL,
    runtimes: Runtimes = SEQ2SEQ_RUNTIMES,
    decided: Decided | None = None,
) -> LmBench:
    """Measure files against `deployables[baseline]` on texts and answers, as token ids, by turns, one text at a time.

    Raises as `measure_lm` does; UsageError also for a fixed length, DeviceError for ids beyond the vocabulary.
    """
    if workload.length is not None:
        what = "text-to-text models are timed on texts of the data's own lengths"
        raise UsageError(what, hint="leave out the length")
    order = sorted(range(len(sources)), key=lambda row: (len(sources[row]), row))
    middle = order[len(order) // 2]

    def inputs(phase: Phase, items: int) -> Inputs:
        if phase == "decode":
            return inputs_of_rows([sources[middle]] * items, [targets[middle]] * items)
        count = min(items, len(order))
        return inputs_of_rows([sources[order[at * len(order) // count]] for at in range(count)])

    fed = Fed(inputs, len(sources), None, _lengths(sources))
    found = measure_steps(deployables, baseline, fed, workload, data, progress, transport, runtimes, decided)
    return replace(found, speeds={name: _with_encoder(found, name, speed) for name, speed in found.speeds.items()})


def _lengths(sources: Sequence[Ids]) -> LengthSummary:
    counts = [len(ids) for ids in sources]
    p50, p90 = (float(value) for value in np.percentile(counts, (50, 90)))
    return LengthSummary(min=min(counts), p50=p50, p90=p90, max=max(counts))


def _with_encoder(found: LmBench, name: str, speed: Speed) -> Speed:
    """The first token comes after the encoder and one step."""
    assert found.prefill is not None
    encoder, step = speed.ttft_ms, speed.decode_per_second
    value, low, high = (
        ms + 1000.0 / rate
        for ms, rate in ((encoder.value, step.value), (encoder.low, step.high), (encoder.high, step.low))
    )
    first = Interval(value=value, low=low, high=high)
    return speed.model_copy(update={"ttft_ms": first, "encoder_ms": found.prefill.measurements[name].latency_ms})
