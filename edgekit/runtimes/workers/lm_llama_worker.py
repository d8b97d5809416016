"""Runs a GGUF language model in llama.cpp: `python lm_llama_worker.py JOB.json RESULT.json`.

Needs llama-cpp-python, numpy.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import answer
from llama_worker import failure, remember
from lm_harness import FLOAT, Need, perform

with contextlib.suppress(ImportError):  # `work` imports it again, where `answer` tells what is missing
    import llama_cpp

MICRO_BATCH = 512  # tokens that llama.cpp computes at once, its own default


class Llama:
    """See `lm_harness.Decoder`; by llama.cpp's C interface (little Python per step)."""

    def __init__(self, job: dict[str, Any], need: Need) -> None:
        path = job["model"]
        if not Path(path).is_file():
            raise failure("bad_model", f"no file {path}")
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise failure("bad_model", f"llama.cpp cannot load {path}")
        self.vocabulary = int(llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model)))
        need.check(self.vocabulary, int(llama_cpp.llama_model_n_ctx_train(self.model)))
        self.context = self._open(job["threads"], need)
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.batch = llama_cpp.llama_batch_init(need.tokens, 0, 1)
        self.length = self.wanted = 0

    def _open(self, threads: int, need: Need) -> Any:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = need.tokens
        params.n_ubatch = min(need.tokens, MICRO_BATCH)
        params.n_outputs_max = need.outputs
        params.n_seq_max = 1
        params.n_threads = params.n_threads_batch = threads
        params.swa_full = True  # a cache of the last window alone cannot be cut back
        params.no_perf = True
        context = llama_cpp.llama_init_from_model(self.model, params)
        if not context:
            raise failure("bad_model", "llama.cpp cannot make a context for this model")
        return context

    def feed(self, ids: Sequence[int], wanted: int) -> None:
        batch, first = self.batch, len(ids) - wanted
        for at, token in enumerate(ids):
            batch.token[at] = token
            batch.pos[at] = self.length + at
            batch.n_seq_id[at] = 1
            batch.seq_id[at][0] = 0
            batch.logits[at] = at >= first
        batch.n_tokens = len(ids)
        status = llama_cpp.llama_decode(self.context, batch)
        if status != 0:
            raise failure("inference", f"llama_decode answered {status}")
        llama_cpp.llama_synchronize(self.context)
        self.length += len(ids)
        self.wanted = wanted

    def logits(self) -> FLOAT:
        import numpy as np

        found = llama_cpp.llama_get_logits(self.context)
        return np.ctypeslib.as_array(found, shape=(self.wanted, self.vocabulary))

    def rewind(self, length: int) -> None:
        if length < self.length and not llama_cpp.llama_memory_seq_rm(self.memory, 0, length, -1):
            raise failure("unsupported_model", "llama.cpp cannot cut back this model's memory")
        self.length = min(self.length, length)


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Do the job; the content of RESULT.json."""
    import llama_cpp

    quiet = llama_cpp.llama_log_callback(remember)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return {"runtime": {"name": "llama.cpp", "version": llama_cpp.__version__}, **perform(job, Llama)}


if __name__ == "__main__":
    answer(work, sys.argv[1], sys.argv[2])
