"""Runs an ONNX text classifier: `python ort_worker.py JOB.json RESULT.json`. Needs onnxruntime, tokenizers, numpy."""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PROVIDER = "CPUExecutionProvider"
Feed = dict[str, Any]


class JobError(Exception):
    """A job that cannot be done; `kind` is for programs, the message for people."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def open_session(model: str, threads: int) -> Any:
    """An InferenceSession on the processor with all graph optimizations, checked to be what was asked for."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model, options, providers=[PROVIDER])
    except (state.Fail, state.InvalidProtobuf, state.InvalidGraph, state.InvalidArgument, state.NoSuchFile) as error:
        raise JobError("bad_model", str(error)) from None
    except (state.NotImplemented, state.RuntimeException) as error:
        raise JobError("unsupported_model", str(error)) from None
    if session.get_providers() != [PROVIDER]:
        raise JobError("provider", f"asked for {PROVIDER}, the session runs on {session.get_providers()}")
    return session


def tokenize(path: str, inputs: dict[str, Any]) -> list[tuple[list[int], list[int]]]:
    """Token ids and type ids of every row (ragged)."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(path)
    tokenizer.no_padding()
    tokenizer.enable_truncation(inputs["max_length"])
    pairs = inputs["pairs"]
    rows = list(zip(inputs["texts"], pairs, strict=True)) if pairs else inputs["texts"]
    return [(e.ids, e.type_ids) for e in tokenizer.encode_batch(rows)]


def feed(rows: Sequence[tuple[list[int], list[int]]], names: set[str], inputs: dict[str, Any]) -> Feed:
    """One batch, padded on the right to its longest row: arrays (batch, length) int64."""
    import numpy as np

    shape = (len(rows), max(len(ids) for ids, _ in rows))
    ids = np.full(shape, inputs["pad_id"], dtype=np.int64)
    mask = np.zeros(shape, dtype=np.int64)
    types = np.zeros(shape, dtype=np.int64)
    for at, (row, segments) in enumerate(rows):
        ids[at, : len(row)] = row
        mask[at, : len(row)] = 1
        if inputs["segments"]:
            types[at, : len(row)] = segments
    arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    unknown = names - arrays.keys()
    if unknown:
        raise JobError("bad_model", f"the model wants inputs that a text classifier has not: {sorted(unknown)}")
    return {name: arrays[name] for name in names}


def predict(run: Callable[[Any], Any], rows: list[Any], make: Callable[[list[Any]], Any], batch: int) -> list[Any]:
    """Logits of every row, in order. Rows of like length share a batch, so that little is padded."""
    logits: list[Any] = [None] * len(rows)
    order = sorted(range(len(rows)), key=lambda at: len(rows[at][0]))
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        for at, row in zip(chosen, run(make([rows[at] for at in chosen])).tolist(), strict=True):
            logits[at] = row
    return logits


def measure(run: Callable[[Any], Any], feeds: list[Any], job: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Wall and CPU milliseconds of each inference: whole passes until `seconds`, or exactly `iterations`."""
    for at in range(job["warmup"]):
        run(feeds[at % len(feeds)])
    count, seconds = job["iterations"], job["seconds"] or 0.0
    wall: list[float] = []
    cpu: list[float] = []
    gc.collect()
    gc.freeze()
    gc.disable()
    begin = time.perf_counter()
    while len(wall) < count if count is not None else not wall or time.perf_counter() - begin < seconds:
        for inputs in feeds if count is None else feeds[: count - len(wall)]:
            cpu_start, start = time.process_time_ns(), time.perf_counter_ns()
            run(inputs)
            end, cpu_end = time.perf_counter_ns(), time.process_time_ns()
            wall.append((end - start) / 1e6)
            cpu.append((cpu_end - cpu_start) / 1e6)
    gc.enable()
    return wall, cpu


def execute(run: Callable[[Any], Any], rows: list[Any], make: Callable[[list[Any]], Any], job: dict[str, Any]) -> Any:
    """What the job asks for, after one first inference that is timed apart."""
    size = job["batch"]
    items = job["items"] if job["items"] is not None else range(len(rows))
    chosen = [rows[at] for at in items]
    first = make(chosen[:size])
    start = time.perf_counter()
    run(first)
    result: dict[str, Any] = {"first_ms": (time.perf_counter() - start) * 1e3}
    if job["mode"] == "predict":
        return result | {"logits": predict(run, rows, make, size)}
    wall, cpu = measure(run, [make(chosen[at : at + size]) for at in range(0, len(chosen), size)], job)
    return result | {"samples_ms": wall, "cpu_ms": cpu}


def peak_rss() -> int:
    """Most bytes this process ever held. Not by getrusage on Linux: there a child starts with its parent's peak."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Do the job; the content of RESULT.json."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    inputs = json.loads(Path(job["inputs"]).read_text(encoding="utf-8"))
    rows = tokenize(job["tokenizer"], inputs)
    start = time.perf_counter()
    session = open_session(job["model"], job["threads"])
    load_ms = (time.perf_counter() - start) * 1e3
    names = {i.name for i in session.get_inputs()}

    def run(arrays: Feed) -> Any:
        try:
            return session.run(["logits"], arrays)[0]
        except (state.InvalidArgument, state.Fail, state.RuntimeException) as error:
            raise JobError("inference", str(error)) from None

    def make(chosen: Sequence[Any]) -> Feed:
        return feed(chosen, names, inputs)

    info = {"name": "onnxruntime", "version": onnxruntime.__version__, "providers": session.get_providers()}
    return {"runtime": info, "threads": job["threads"], "load_ms": load_ms, **execute(run, rows, make, job)}


def answer(work: Callable[[dict[str, Any]], dict[str, Any]], job_path: str, result_path: str) -> None:
    """Write RESULT.json, with a result or an error, in one piece."""
    error = None
    result: dict[str, Any] = {}
    try:
        result = work(json.loads(Path(job_path).read_text(encoding="utf-8")))
    except ImportError as missing:
        error = {"kind": "missing_runtime", "message": str(missing)}
    except MemoryError:
        error = {"kind": "out_of_memory", "message": "out of memory"}
    except JobError as failed:
        error = {"kind": failed.kind, "message": str(failed)}
    result |= {"schema": 1, "peak_rss_bytes": peak_rss(), "error": error}
    partial = Path(result_path + ".part")
    partial.write_text(json.dumps(result), encoding="utf-8")
    partial.replace(result_path)


if __name__ == "__main__":
    answer(work, sys.argv[1], sys.argv[2])
