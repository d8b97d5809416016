"""Runs a folder of onnxruntime-genai's: `python lm_genai_worker.py JOB.json RESULT.json`.

Needs onnxruntime-genai, numpy.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from harness import JobError, answer
from lm_harness import FLOAT, Need, perform


class GenAI:
    """See `lm_harness.Decoder`; by onnxruntime-genai's Generator. Tokens are chosen by nobody: logits are read."""

    def __init__(self, job: dict[str, Any], need: Need) -> None:
        import onnxruntime_genai

        folder = Path(job["model"])
        file = folder / "genai_config.json"
        if not file.is_file():
            raise JobError("bad_model", f"no file {file}")
        told = json.loads(file.read_text(encoding="utf-8"))["model"]
        need.check(int(told["vocab_size"]), int(told["context_length"]))
        options = {"model": {"decoder": {"session_options": {"intra_op_num_threads": job["threads"]}}}}
        with told_as("bad_model"):
            config = onnxruntime_genai.Config(str(folder))
            config.overlay(json.dumps(options))
            self.model = onnxruntime_genai.Model(config)
            params = onnxruntime_genai.GeneratorParams(self.model)
            params.set_search_options(max_length=need.tokens, do_sample=False)
            self.generator = onnxruntime_genai.Generator(self.model, params)
        self.fed = self.wanted = 0

    def feed(self, ids: Sequence[int], wanted: int) -> None:
        with told_as("inference"):
            self.generator.append_tokens(np.asarray(ids, dtype=np.int32))
        self.fed, self.wanted = len(ids), wanted

    def logits(self) -> FLOAT:
        if self.wanted == 1:
            return np.asarray(self.generator.get_logits()[0], dtype=np.float32)
        found = self.generator.get_output("logits")[0]
        if len(found) < self.fed:
            what = "the file gives logits of the last token only, so its probabilities cannot be read"
            raise JobError("unsupported_model", what)
        return np.asarray(found[-self.wanted :], dtype=np.float32)

    def rewind(self, length: int) -> None:
        if length < self.generator.token_count():
            with told_as("unsupported_model"):
                self.generator.rewind_to(length)


@contextmanager
def told_as(kind: str) -> Iterator[None]:
    """onnxruntime-genai raises RuntimeError for everything."""
    try:
        yield
    except RuntimeError as error:
        raise JobError(kind, str(error)) from None


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Do the job; the content of RESULT.json."""
    import onnxruntime_genai

    info = {"name": "onnxruntime-genai", "version": onnxruntime_genai.__version__, "providers": [job["provider"]]}
    return {"runtime": info, **perform(job, GenAI)}


if __name__ == "__main__":
    answer(work, sys.argv[1], sys.argv[2])
