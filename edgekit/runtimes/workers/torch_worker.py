"""Runs a Transformers folder in eager PyTorch: `python torch_worker.py JOB.json RESULT.json`. Needs edgekit."""

from __future__ import annotations

import json
import sys
import time
from base64 import b64decode
from pathlib import Path
from typing import Any

from harness import JobError, answer, execute

from edgekit.artifact import Task
from edgekit.data.pictures import of_pictures
from edgekit.data.table import Table
from edgekit.errors import ModelError
from edgekit.tasks.base import Encoded, Tokens


def encode(folder: Path, raw: dict[str, Any]) -> Encoded:
    """The rows of the inputs, as token ids where they bring these."""
    from edgekit.tasks.encoders import examples_of

    if "rows" in raw:
        return Tokens(
            [ids for ids, _ in raw["rows"]],
            [types for _, types in raw["rows"]] if raw["segments"] else None,
            raw["pad_id"],
        )
    if "pixels" in raw:
        table = of_pictures([b64decode(text) for text in raw["texts"]])
    else:
        table = Table(tuple(raw["texts"]), tuple(raw["pairs"]) if raw["pairs"] else None)
    task = Task(kind=raw["kind"], max_length=raw["max_length"], pair=table.pairs is not None, segments=raw["segments"])
    return examples_of(folder, table, task).encoded


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Do the job; the content of RESULT.json."""
    import torch

    from edgekit.nn.head import output_of
    from edgekit.nn.load import load_classifier

    device = job["provider"]
    if device == "cuda" and not torch.cuda.is_available():
        raise JobError("missing_runtime", "this torch has no CUDA device")
    torch.set_num_threads(job["threads"])
    raw = json.loads(Path(job["inputs"]).read_text(encoding="utf-8"))
    folder = Path(job["model"])
    encoded = encode(folder, raw)
    start = time.perf_counter()
    try:
        model = load_classifier(folder, kind=raw["kind"], device=device)
    except ModelError as error:
        raise JobError("bad_model", str(error)) from None
    load_ms = (time.perf_counter() - start) * 1e3

    def make(rows: list[int]) -> dict[str, torch.Tensor]:
        return {name: tensor.to(device) for name, tensor in encoded.batch(rows).items()}

    def run(batch: dict[str, torch.Tensor]) -> Any:
        return output_of(model, batch).tolist()  # which waits for a GPU

    with torch.inference_mode():
        done = execute(job, range(len(encoded)), make, run, encoded.lengths.__getitem__)
    info = {"name": "torch", "version": torch.__version__, "providers": [device]}
    return {"runtime": info, "threads": job["threads"], "load_ms": load_ms, **done}


if __name__ == "__main__":
    answer(work, sys.argv[1], sys.argv[2])
