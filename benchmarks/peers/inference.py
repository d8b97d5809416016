"""One inference after another of the model in JOB.json, as edgekit's own worker does it; for tools that time programs.

PYTHONPATH=WORKERS python inference.py JOB.json COUNT      COUNT inferences (hyperfine times the whole process)
PYTHONPATH=WORKERS JOB=JOB.json pytest inference.py        pytest-benchmark times one inference
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ort_worker import feed, open_session, tokenize


def load(path: str) -> Callable[[], Any]:
    """A function that runs the model once, on the first row."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    inputs = json.loads(Path(job["inputs"]).read_text(encoding="utf-8"))
    session = open_session(job["model"], job["threads"], job["provider"])
    names = {item.name for item in session.get_inputs()}
    arrays = feed(tokenize(job["tokenizer"], inputs)[:1], names, inputs)
    return lambda: session.run(["logits"], arrays)


def test_inference(benchmark: Any) -> None:
    benchmark(load(os.environ["JOB"]))


if __name__ == "__main__":
    run = load(sys.argv[1])
    for _ in range(int(sys.argv[2])):
        run()
