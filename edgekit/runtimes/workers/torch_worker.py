"""Runs a Transformers folder in eager PyTorch: `python torch_worker.py JOB.json RESULT.json`. Needs edgekit."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from edgekit.artifact import Task
from edgekit.data.table import Table
from edgekit.errors import ModelError
from edgekit.runtimes.workers.ort_worker import JobError, answer, execute


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Do the job; the content of RESULT.json."""
    import torch

    from edgekit.nn.load import load_classifier
    from edgekit.tasks.text_classification import encode

    torch.set_num_threads(job["threads"])
    raw = json.loads(Path(job["inputs"]).read_text(encoding="utf-8"))
    folder = Path(job["model"])
    table = Table(tuple(raw["texts"]), tuple(raw["pairs"]) if raw["pairs"] else None)
    task = Task(labels=(), max_length=raw["max_length"], pair=table.pairs is not None, segments=raw["segments"])
    encoded = encode(folder, table, task)
    start = time.perf_counter()
    try:
        model = load_classifier(folder)
    except ModelError as error:
        raise JobError("bad_model", str(error)) from None
    load_ms = (time.perf_counter() - start) * 1e3

    def run(batch: Any) -> Any:
        return model(**batch).logits

    rows = [(ids, at) for at, ids in enumerate(encoded.ids)]
    with torch.inference_mode():
        done = execute(run, rows, lambda chosen: encoded.batch([at for _, at in chosen]), job)
    info = {"name": "torch", "version": torch.__version__, "providers": ["cpu"]}
    return {"runtime": info, "threads": job["threads"], "load_ms": load_ms, **done}


if __name__ == "__main__":
    answer(work, sys.argv[1], sys.argv[2])
