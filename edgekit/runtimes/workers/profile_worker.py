"""Times each node of a file: `python profile_worker.py JOB.json RESULT.json`. Needs what the file's own worker needs.

RESULT.json: {"runtime", "nodes": [{"name", "operator", "ms"}], "wall_ms"}: medians over `iterations` inferences, by the
runtime's own profiler, of nodes as it executes them (fused, split, reordered), in the order of the first inference.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import JobError, answer, warm_up
from ort_worker import Feed, feed, read_rows

Node = tuple[str, str, float]  # name, operator, milliseconds


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Do the job; the content of RESULT.json."""
    inputs = json.loads(Path(job["inputs"]).read_text(encoding="utf-8"))
    rows = read_rows(job["tokenizer"], inputs)[: job["batch"]]
    profile = {".onnx": profile_onnx, ".xml": profile_openvino}.get(Path(job["model"]).suffix)
    if profile is None:
        raise JobError("bad_input", f"no profiler for {job['model']}")
    return profile(job, lambda names: feed(rows, names, inputs))


def profile_onnx(job: dict[str, Any], make: Callable[[set[str]], Feed]) -> dict[str, Any]:
    """By ONNX Runtime's profile: a file in the working directory, which is the job's own."""
    import onnxruntime
    from ort_worker import open_session

    session = open_session(job["model"], job["threads"], job["provider"], profile="profile")
    arrays = make({i.name for i in session.get_inputs()})
    warm = warm_up(lambda given: session.run(["logits"], given), [arrays], job["warmup"])
    wall = timed(lambda: session.run(["logits"], arrays), job["iterations"])
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            key = (event["name"].removesuffix("_kernel_time"), event["args"]["op_name"])
            times.setdefault(key, []).append(event["dur"] / 1e3)
    nodes = [(name, operator, statistics.median(found[warm:])) for (name, operator), found in times.items()]
    info = {"name": "onnxruntime", "version": onnxruntime.__version__, "providers": [job["provider"]]}
    return result(info, nodes, wall)


def profile_openvino(job: dict[str, Any], make: Callable[[set[str]], Feed]) -> dict[str, Any]:
    """By OpenVINO's performance counters; the operator is told with the kernel that computes it."""
    from openvino_worker import compile_model

    compiled = compile_model(job["model"], job["threads"], job["provider"], profile=True)
    import openvino

    request = compiled.create_infer_request()
    arrays = make({i.get_any_name() for i in compiled.inputs})
    warm_up(request.infer, [arrays], job["warmup"])
    times: dict[tuple[str, str], list[float]] = {}

    def run() -> None:
        request.infer(arrays)
        for node in request.profiling_info:
            if node.status == openvino.ProfilingInfo.Status.EXECUTED:
                key = (node.node_name, f"{node.node_type} ({node.exec_type})")
                times.setdefault(key, []).append(node.real_time.total_seconds() * 1e3)

    wall = timed(run, job["iterations"])
    nodes = [(name, operator, statistics.median(found)) for (name, operator), found in times.items()]
    return result({"name": "openvino", "version": openvino.__version__, "providers": [job["provider"]]}, nodes, wall)


def timed(run: Callable[[], Any], count: int) -> float:
    """Median milliseconds of `count` calls."""
    found = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        found.append((time.perf_counter() - start) * 1e3)
    return statistics.median(found)


def result(info: dict[str, Any], nodes: list[Node], wall: float) -> dict[str, Any]:
    told = [{"name": name, "operator": operator, "ms": ms} for name, operator, ms in nodes]
    return {"runtime": info, "nodes": told, "wall_ms": wall}


if __name__ == "__main__":
    answer(work, sys.argv[1], sys.argv[2])
