"""Find entities in texts with the model in this folder. Needs only: pip install onnxruntime tokenizers numpy

    python tag.py "Ada Lovelace lived in London"     one text, its words parted by spaces as in the training data
    python tag.py < texts.txt                        a text a line

Prints type, score and words of each entity, tab-separated. As a module: Tagger(folder).words("in London") gives a label
and its probability for each word, [("in", "O", 0.99), ("London", "B-location", 0.98)].
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else importing onnxruntime tells its makers
import onnxruntime

HERE = Path(__file__).resolve().parent
Word = tuple[str, str, float]  # as it is written, label, probability


class Tagger:
    """A model folder: model.onnx, tokenizer.json and labels.json."""

    def __init__(self, folder: Path = HERE, threads: int = 0) -> None:
        """`threads`: 0 lets onnxruntime choose."""
        settings = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
        self.labels: list[str] = settings["labels"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(settings["max_length"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        model = str(folder / "model.onnx")
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.names = {i.name for i in self.session.get_inputs()}

    def words(self, text: str) -> list[Word]:
        """Each word's label, read at its first token; O for a word without one (beyond the longest input, for one)."""
        words = text.split()
        encoding = self.tokenizer.encode(" ".join(words))
        ids = np.array([encoding.ids], dtype=np.int64)
        arrays = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        logits = self.session.run(["logits"], {name: arrays[name] for name in self.names})[0][0]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        chances: Any = powers / powers.sum(axis=1, keepdims=True)
        found, end = [], -1
        for word in words:
            begin, end = end + 1, end + 1 + len(word)
            inside = [
                token
                for token, (first, last) in enumerate(encoding.offsets)
                if begin < last <= end and first < last and not encoding.special_tokens_mask[token]
            ]
            row = chances[inside[0]] if inside else np.eye(len(self.labels))[self.labels.index("O")]
            found.append((word, self.labels[int(row.argmax())], float(row.max())))
        return found

    def __call__(self, text: str) -> list[tuple[str, float, str]]:
        """Type, least probability and words of each entity."""
        found: list[tuple[str, float, str]] = []
        kind = ""  # of the entity that the last word is part of
        for word, label, score in self.words(text):
            tag, _, name = label.partition("-")
            if tag == "I" and name == kind:
                _, least, before = found[-1]
                found[-1] = (kind, min(least, score), f"{before} {word}")
                continue
            kind = name
            if kind:
                found.append((kind, score, word))
        return found


def main(arguments: list[str]) -> None:
    tagger = Tagger()
    for text in arguments or [line for line in sys.stdin if line.strip()]:
        for kind, score, words in tagger(text):
            print(f"{kind}\t{score:.4f}\t{words}")


if __name__ == "__main__":
    main(sys.argv[1:])
