"""Runs a decoder's Transformers folder in eager PyTorch: `python lm_torch_worker.py JOB.json RESULT.json`.

Needs edgekit.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import JobError, answer
from lm_harness import FLOAT, Need, perform

from edgekit.errors import ModelError


class Torch:
    """See `lm_harness.Decoder`; float32."""

    def __init__(self, job: dict[str, Any], need: Need) -> None:
        import torch

        from edgekit.nn.decoders import load_decoder

        self.device = job["provider"]
        if self.device == "cuda" and not torch.cuda.is_available():
            raise JobError("missing_runtime", "this torch has no CUDA device")
        torch.set_num_threads(job["threads"])
        try:
            self.model = load_decoder(Path(job["model"]), device=self.device)
        except ModelError as error:
            raise JobError("bad_model", str(error)) from None
        self.config = self.model.config.get_text_config()
        need.check(int(self.config.vocab_size), int(getattr(self.config, "max_position_embeddings", None) or 0))
        self.found: torch.Tensor | None = None
        self.rewind(0)

    def feed(self, ids: Sequence[int], wanted: int) -> None:
        import torch

        given = torch.tensor([list(ids)], device=self.device)
        with torch.inference_mode():
            done = self.model(input_ids=given, past_key_values=self.cache, use_cache=True, logits_to_keep=wanted)
            self.found = done.logits[0, -wanted:].float().cpu()  # which waits for a GPU

    def logits(self) -> FLOAT:
        assert self.found is not None
        found: FLOAT = self.found.numpy()
        return found

    def rewind(self, length: int) -> None:
        from transformers import DynamicCache

        if length == 0:
            self.cache: Any = DynamicCache(config=self.config)
        elif length < self.cache.get_seq_length():
            self.cache.crop(length - self.cache.get_seq_length())  # tokens that are removed, as a negative number


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Do the job; the content of RESULT.json."""
    import torch

    info = {"name": "torch", "version": torch.__version__, "providers": [job["provider"]]}
    return {"runtime": info, **perform(job, Torch)}


if __name__ == "__main__":
    answer(work, sys.argv[1], sys.argv[2])
