"""Answer texts with the model in this folder. Needs only: pip install onnxruntime tokenizers numpy

    python generate.py "translate English to German: Good morning."     one text, or several
    python generate.py < texts.txt                                       a text a line

Prints an answer a line, always of the likeliest tokens. As a module: Generator(folder)("some text") -> "its answer".
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else importing onnxruntime tells its makers
import onnxruntime

HERE = Path(__file__).resolve().parent


class Generator:
    """A model folder: encoder.onnx, decoder.onnx, generation.json and the tokenizer."""

    def __init__(self, folder: Path = HERE, threads: int = 0) -> None:
        """`threads`: 0 lets onnxruntime choose."""
        self.settings = json.loads((folder / "generation.json").read_text(encoding="utf-8"))
        self.reader = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.reader.no_padding()
        self.reader.enable_truncation(self.settings["max_length"])
        target = folder / "target_tokenizer.json"
        self.writer = Tokenizer.from_file(str(target)) if target.is_file() else self.reader
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.encoder, self.decoder = (
            onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
            for name in ("encoder.onnx", "decoder.onnx")
        )
        self.cross = [output.name for output in self.encoder.get_outputs()]
        self.past = {i.name: i.shape for i in self.decoder.get_inputs() if i.name.startswith("past_")}

    def __call__(self, text: str, tokens: int = 100) -> str:
        """The answer, of at most so many tokens."""
        return str(self.writer.decode(list(self.tokens(self.reader.encode(text).ids, tokens))))

    def tokens(self, ids: Sequence[int], most: int) -> Iterator[int]:
        """Token ids of the answer to `ids`, one by one; the one that ends it comes last."""
        told = self.settings
        source, cache = self.read(ids), self.empty()
        token = told["start"]
        for step in range(most):
            logits, cache = self.step([token], source, cache)
            scores = logits[-1]
            scores[told["never"]] = -np.inf
            token = int(scores.argmax())
            if step == 0 and told["first"] is not None:
                token = told["first"]
            if step == most - 1 and told["last"] is not None:
                token = told["last"]
            yield token
            if token in told["end"]:
                return

    def read(self, ids: Sequence[int]) -> dict[str, Any]:
        """What the decoder looks at, the same at every step."""
        array = np.array([ids], dtype=np.int64)
        mask = np.ones_like(array)
        made = self.encoder.run(self.cross, {"input_ids": array, "attention_mask": mask})
        return {"attention_mask": mask, **dict(zip(self.cross, made, strict=True))}

    def empty(self) -> dict[str, Any]:
        """The cache before the first token."""
        return {name: np.zeros((1, shape[1], 0, shape[3]), np.float32) for name, shape in self.past.items()}

    def step(self, ids: Sequence[int], source: dict[str, Any], cache: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Logits (tokens, vocabulary) of these tokens, and the cache with them in it."""
        array = np.array([ids], dtype=np.int64)
        wanted = ["logits", *(name.replace("past_", "present_") for name in cache)]
        logits, *made = self.decoder.run(wanted, {"input_ids": array, **source, **cache})
        return logits[0], dict(zip(cache, made, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description="Answer texts with the model in this folder.")
    parser.add_argument("texts", nargs="*", help="without any, a text a line of standard input")
    parser.add_argument("--tokens", type=int, default=100, help="at most so many in an answer")
    parser.add_argument("--threads", type=int, default=0, help="0: onnxruntime chooses")
    options = parser.parse_args()
    generator = Generator(threads=options.threads)
    for text in options.texts or (line.rstrip("\n") for line in sys.stdin if line.strip()):
        print(generator(text, options.tokens), flush=True)


if __name__ == "__main__":
    main()
