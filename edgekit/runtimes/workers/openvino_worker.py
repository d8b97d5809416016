"""Runs an OpenVINO encoder: `python openvino_worker.py JOB.json RESULT.json`. Needs openvino, tokenizers or Pillow.

Inputs are those of `ort_worker.py`: the IR is made of the same ONNX file.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import JobError, answer, execute
from ort_worker import Feed, feed, read_rows

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # nothing is sent, and nothing beside what is timed


def settings(threads: int) -> dict[str, Any]:
    """One inference at a time on exactly `threads` threads, float32 where the file is not int8."""
    from openvino import properties
    from openvino.properties import hint

    return {
        hint.performance_mode: hint.PerformanceMode.LATENCY,
        hint.inference_precision: "f32",  # else bfloat16 where the processor has it, and other answers
        properties.inference_num_threads: threads,
        properties.num_streams: 1,
        hint.enable_hyper_threading: True,  # else threads beyond the physical cores are left out without a word
    }


def compile_model(model: str, threads: int, device: str, profile: bool = False) -> Any:
    """The model, compiled for `device`; `profile`: to time each node."""
    import openvino
    from openvino import properties

    core = openvino.Core()
    if device not in core.available_devices:
        raise JobError("missing_runtime", f"this openvino has no device {device}")
    try:
        return core.compile_model(
            core.read_model(model), device, settings(threads) | {properties.enable_profiling: profile}
        )
    except RuntimeError as error:
        raise JobError("bad_model", str(error)) from None


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Do the job; the content of RESULT.json."""
    import openvino

    inputs = json.loads(Path(job["inputs"]).read_text(encoding="utf-8"))
    rows = read_rows(job["tokenizer"], inputs)
    start = time.perf_counter()
    compiled = compile_model(job["model"], job["threads"], job["provider"])
    load_ms = (time.perf_counter() - start) * 1e3
    request, output = compiled.create_infer_request(), compiled.output("logits")
    names = {i.get_any_name() for i in compiled.inputs}

    def run(arrays: Feed) -> Any:
        try:
            return request.infer(arrays, share_inputs=True)[output]
        except RuntimeError as error:
            raise JobError("inference", str(error)) from None

    def make(chosen: Sequence[Any]) -> Feed:
        return feed(chosen, names, inputs)

    info = {"name": "openvino", "version": openvino.__version__, "providers": [job["provider"]]}
    done = execute(job, rows, make, run, lambda row: len(row[0]))
    return {"runtime": info, "threads": job["threads"], "load_ms": load_ms, **done}


if __name__ == "__main__":
    answer(work, sys.argv[1], sys.argv[2])
