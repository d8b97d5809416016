"""Runs an ONNX encoder: `python ort_worker.py JOB.json RESULT.json`. Needs onnxruntime, numpy, and tokenizers for texts
or Pillow for pictures."""

from __future__ import annotations

import json
import os
import sys
import time
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import JobError, answer, execute
from placement import own_processors

Feed = dict[str, Any]
Row = tuple[Any, list[int]]  # token ids and type ids; of a picture its file, and nothing


def open_session(model: str, threads: int, provider: str, processors: Sequence[int] = (), profile: str = "") -> Any:
    """An InferenceSession on `provider` with all graph optimizations, checked to run where it was asked to.

    `processors`: one for each of its threads, of which the caller's is the first; empty: any.
    `profile`: beginning of the name of a file that it writes its profile to; empty: none.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    if provider not in onnxruntime.get_available_providers():
        raise JobError("missing_runtime", f"this onnxruntime has no {provider}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    if processors[1:]:
        others = ";".join(str(cpu + 1) for cpu in processors[1:])  # onnxruntime counts from 1
        options.add_session_config_entry("session.intra_op_thread_affinities", others)
    try:
        session = onnxruntime.InferenceSession(model, options, providers=[provider])
    except (state.Fail, state.InvalidProtobuf, state.InvalidGraph, state.InvalidArgument, state.NoSuchFile) as error:
        raise JobError("bad_model", str(error)) from None
    except (state.NotImplemented, state.RuntimeException) as error:
        raise JobError("unsupported_model", str(error)) from None
    if processors:
        os.sched_setaffinity(0, processors[:1])
    if session.get_providers()[0] != provider:  # a provider that fails to start is left out without a word
        raise JobError("provider", f"asked for {provider}, the session runs on {session.get_providers()}")
    return session


def read_rows(path: str, inputs: dict[str, Any]) -> list[Row]:
    """Every row of texts or of pictures, which are not decoded yet."""
    if "pixels" in inputs:
        return [(b64decode(text), []) for text in inputs["texts"]]
    return tokenize(path, inputs)


def tokenize(path: str, inputs: dict[str, Any]) -> list[Row]:
    """Token ids and type ids of every row (ragged), unless the inputs bring them."""
    if "rows" in inputs:
        return [(ids, types) for ids, types in inputs["rows"]]
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(path)
    tokenizer.no_padding()
    tokenizer.enable_truncation(inputs["max_length"])
    pairs = inputs["pairs"]
    rows = list(zip(inputs["texts"], pairs, strict=True)) if pairs else inputs["texts"]
    return [(e.ids, e.type_ids) for e in tokenizer.encode_batch(rows)]


def feed(rows: Sequence[Row], names: set[str], inputs: dict[str, Any]) -> Feed:
    """One batch, padded on the right to its longest row: arrays (batch, length) int64; or pictures' pixels."""
    import numpy as np

    if "pixels" in inputs:
        import pixels

        return {"pixel_values": pixels.batch([data for data, _ in rows], inputs["pixels"])}
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


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Do the job; the content of RESULT.json."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    inputs = json.loads(Path(job["inputs"]).read_text(encoding="utf-8"))
    rows = read_rows(job["tokenizer"], inputs)
    start = time.perf_counter()
    processors = own_processors(job["threads"]) if job["mode"] == "serve" else ()
    session = open_session(job["model"], job["threads"], job["provider"], processors)
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
    done = execute(job, rows, make, run, lambda row: len(row[0]))
    return {"runtime": info, "threads": job["threads"], "load_ms": load_ms, **done}


if __name__ == "__main__":
    answer(work, sys.argv[1], sys.argv[2])
