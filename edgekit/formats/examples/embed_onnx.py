"""Embed texts and compare them with the model in this folder. Needs only: pip install onnxruntime tokenizers numpy

    python embed.py "first text" "second text"       how alike two texts are: the cosine of their embeddings
    python embed.py "a text" "another" "a third"     the first text against each of the others, the likest first
    python embed.py < pairs.txt                      a pair a line, tab-separated

Prints similarity and texts, tab-separated. As a module: Embedder(folder)(texts) gives the embeddings, (texts, width)
float32, each of length 1, so that their products are the similarities.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else importing onnxruntime tells its makers
import onnxruntime

HERE = Path(__file__).resolve().parent


class Embedder:
    """A model folder: model.onnx, tokenizer.json and labels.json."""

    def __init__(self, folder: Path = HERE, threads: int = 0) -> None:
        """`threads`: 0 lets onnxruntime choose."""
        settings = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(settings["max_length"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        model = str(folder / "model.onnx")
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.names = {i.name for i in self.session.get_inputs()}

    def __call__(self, texts: Sequence[str]) -> Any:
        """Embeddings (texts, width) float32; one text at a time, as they were measured."""
        return np.stack([self._one(encoding.ids) for encoding in self.tokenizer.encode_batch(list(texts))])

    def _one(self, tokens: list[int]) -> Any:
        ids = np.array([tokens], dtype=np.int64)
        arrays = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        return self.session.run(["logits"], {name: arrays[name] for name in self.names})[0][0]


def main(arguments: list[str]) -> None:
    embed = Embedder()
    if len(arguments) == 1:
        sys.exit("give two texts or more")
    for first, *others in [arguments] if arguments else (line.rstrip("\n").split("\t") for line in sys.stdin):
        vectors = embed([first, *others])
        for at in np.argsort(-(vectors[1:] @ vectors[0]), kind="stable"):
            print(f"{vectors[1 + at] @ vectors[0]:.4f}\t{first}\t{others[at]}")


if __name__ == "__main__":
    main(sys.argv[1:])
