"""Speed of language models: decode steps and the reading of prompts, each timed as `bench.py` times inferences.

The latency of a decode step is one token's, after a context of `workload.length` tokens that stays in the KV cache;
that of a prefill is a whole prompt's of that length, which is also the time to the first token once a file is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgekit.artifact import Artifact
from edgekit.bench import Bench, Decided, Session, run_session
from edgekit.decode_bytes import decode_bytes
from edgekit.errors import DataError, UsageError
from edgekit.jobs import Inputs, Phase
from edgekit.progress import Progress
from edgekit.report.schema import Conditions, Latency, LengthSummary, Speed
from edgekit.running import threads_for
from edgekit.runtimes import Runtimes, Workload, runtime_of
from edgekit.runtimes.lm import LM_RUNTIMES, bandwidth_job, inputs_of_rows, read_answers
from edgekit.statistics import Interval
from edgekit.tasks.language_modeling import Windows
from edgekit.transports import LOCAL, Transport

__all__ = ["Fed", "LmBench", "measure_lm", "measure_steps"]

LENGTH = 128  # tokens of the context and of the prompt, unless the workload says otherwise


@dataclass(frozen=True)
class LmBench:
    """Decode steps and prefills (latency, speed-up, rounds: what a gate judges), and the figures that follow by file.
    `bandwidth`: bytes per second that the machine read; `prefill` None where Ctrl-C came before it."""

    decode: Bench
    prefill: Bench | None
    speeds: dict[str, Speed]
    bandwidth: float


def measure_lm(
    deployables: Mapping[str, Artifact],
    baseline: str,
    windows: Windows,
    workload: Workload,
    *,
    data: str = "data",
    progress: Progress | None = None,
    transport: Transport = LOCAL,
    runtimes: Runtimes = LM_RUNTIMES,
    decided: Decided | None = None,
) -> LmBench:
    """Measure files against `deployables[baseline]` on tokens of `windows`, by turns, one sequence at a time.

    First decode steps, for as long as `decided` wants (see `bench.measure`), then prefills. Raises UsageError for an
    unknown baseline, a batch, an emulated transport, or a file that none of `runtimes` takes; DataError where the
    windows hold too few tokens; DeviceError where a file cannot be run, also for a length beyond the model's context.
    """
    length = workload.length or LENGTH

    def rows(phase: Phase, items: int) -> Inputs:
        return inputs_of_rows(_rows(windows, phase, length, items))

    lengths = LengthSummary(min=length, p50=length, p90=length, max=length)
    fed = Fed(rows, len(windows), length, lengths)
    return measure_steps(deployables, baseline, fed, workload, data, progress, transport, runtimes, decided)


@dataclass(frozen=True)
class Fed:
    """What is timed: `inputs` of so many items of a phase, `n` examples that they are chosen from, and their tokens:
    `length` where all prompts have so many."""

    inputs: Callable[[Phase, int], Inputs]
    n: int
    length: int | None
    tokens: LengthSummary


def measure_steps(
    deployables: Mapping[str, Artifact],
    baseline: str,
    fed: Fed,
    workload: Workload,
    data: str,
    progress: Progress | None,
    transport: Transport,
    runtimes: Runtimes,
    decided: Decided | None,
) -> LmBench:
    """Decode steps, then prefills, of whatever is `fed`; see `measure_lm`."""
    _check(deployables, baseline, workload, transport, runtimes)
    threads = workload.threads or threads_for(transport)
    workload = workload.model_copy(update={"threads": threads, "length": fed.length, "throughput_batches": ()})

    def session(phase: Phase, timed: Workload) -> Session:
        inputs = fed.inputs(phase, timed.items)
        items = len(inputs.rows or ())
        conditions = _conditions(data, fed, items, timed, transport)
        shared = (items, timed, transport, runtimes, transport.probe(), conditions, phase)
        return Session(deployables, baseline, lambda _: inputs, *shared)

    before = _bandwidth(deployables[baseline], threads, transport)
    decode = run_session(session("decode", workload), progress, decided)
    prefill = None
    if not decode.interrupted:
        prefill = run_session(session("prefill", workload.model_copy(update={"budget": 0.0})), progress)
    bandwidth = max(before, _bandwidth(deployables[baseline], threads, transport))
    return LmBench(decode, prefill, _speeds(deployables, decode, prefill, bandwidth, fed.tokens.p50), bandwidth)


def _check(
    deployables: Mapping[str, Artifact], baseline: str, workload: Workload, transport: Transport, runtimes: Runtimes
) -> None:
    if baseline not in deployables:
        raise UsageError(f"the baseline {baseline!r} is not among the files", hint=f"one of: {', '.join(deployables)}")
    if workload.batch > 1:
        raise UsageError("language models are timed one sequence at a time", hint="measure with batch 1")
    if transport.fidelity == "emulated":
        raise UsageError(f"{transport.name}: language models are not timed where times mean nothing")
    for artifact in deployables.values():
        runtime_of(artifact, runtimes)


def _rows(windows: Windows, phase: Phase, length: int, items: int) -> list[list[int]]:
    """Token ids of each timed item: of a prefill a prompt, of a decode step the same context and the token after it.

    Raises DataError where there are too few.
    """
    stream = windows.ids.reshape(-1)
    if len(stream) < length + 1:
        what = f"{len(stream)} tokens are too few to time a context of {length}"
        raise DataError(what, hint="give more text, or a smaller --length")
    last = len(stream) - length - (phase == "decode")
    starts = [last * at // max(1, items - 1) for at in range(items)]
    if phase == "prefill":
        return [stream[at : at + length].tolist() for at in starts]
    context = stream[:length].tolist()
    return [[*context, int(stream[at + length])] for at in starts]


def _conditions(data: str, fed: Fed, items: int, workload: Workload, transport: Transport) -> Conditions:
    return Conditions(
        data=data,
        n=fed.n,
        items=items,
        batch=1,
        threads=workload.threads,
        rounds=workload.rounds,
        length=fed.length,
        tokens=fed.tokens,
        transport=transport.name,
        fidelity=transport.fidelity,
    )


def _bandwidth(artifact: Artifact, threads: int, transport: Transport) -> float:
    completed = transport.run(bandwidth_job(artifact, threads))
    return read_answers(completed.raw, "memory bandwidth").bytes_per_second


def _speeds(
    deployables: Mapping[str, Artifact], decode: Bench, prefill: Bench | None, bandwidth: float, tokens: float
) -> dict[str, Speed]:
    """By file; none where measuring was stopped before prompts were timed."""
    found: dict[str, Speed] = {}
    for name, artifact in deployables.items():
        step = decode.measurements[name].latency_ms
        prompt = prefill.measurements[name].latency_ms if prefill is not None else None
        if step is None or prompt is None:
            continue
        rate, read = _rate(_interval(step), 1), decode_bytes(artifact)
        found[name] = Speed(
            decode_per_second=rate,
            prefill_per_second=_rate(_interval(prompt), tokens),
            ttft_ms=_interval(prompt),
            decode_bytes=read,
            bandwidth_share=rate.value * read / bandwidth,
        )
    return found


def _interval(latency: Latency) -> Interval:
    low, high = latency.p50_interval or (latency.p50, latency.p50)
    return Interval(value=latency.p50, low=low, high=high)


def _rate(milliseconds: Interval, tokens: float) -> Interval:
    """Tokens per second."""
    value, low, high = (1000.0 * tokens / ms for ms in (milliseconds.value, milliseconds.high, milliseconds.low))
    return Interval(value=value, low=low, high=high)
