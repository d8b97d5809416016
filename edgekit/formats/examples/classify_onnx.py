"""Classify texts with the model in this folder. Needs only: pip install onnxruntime tokenizers numpy

    python classify.py "some text"                     one text
    python classify.py "first text" "second text"      a pair of texts, for a model of pairs; else two texts
    python classify.py < texts.txt                     a text a line (for pairs: the two texts with a tab between)

Prints label, score and text, tab-separated. As a module: Classifier(folder)(["some text"]) -> [("label", 0.98)].
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
Text = str | tuple[str, str]


class Classifier:
    """A model folder: model.onnx, tokenizer.json and labels.json."""

    def __init__(self, folder: Path = HERE, threads: int = 0) -> None:
        """`threads`: 0 lets onnxruntime choose."""
        settings = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
        self.labels: list[str] = settings["labels"]
        self.segments: bool = settings.get("segments", False)
        self.pair: bool = settings.get("pair", False)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(settings["max_length"])
        self.tokenizer.enable_padding(pad_id=settings.get("pad_id", 0))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        model = str(folder / "model.onnx")
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.names = {i.name for i in self.session.get_inputs()}

    def probabilities(self, texts: Sequence[Text]) -> Any:
        """Softmax of the logits, (texts, labels)."""
        encodings = self.tokenizer.encode_batch(list(texts))
        types = [e.type_ids if self.segments else [0] * len(e.ids) for e in encodings]
        arrays = {
            "input_ids": np.array([e.ids for e in encodings], dtype=np.int64),
            "attention_mask": np.array([e.attention_mask for e in encodings], dtype=np.int64),
            "token_type_ids": np.array(types, dtype=np.int64),
        }
        logits = self.session.run(["logits"], {name: arrays[name] for name in self.names})[0]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def __call__(self, texts: Sequence[Text]) -> list[tuple[str, float]]:
        """The best label of each text, and its probability."""
        return [(self.labels[int(row.argmax())], float(row.max())) for row in self.probabilities(texts)]


def texts_of(arguments: list[str], pair: bool) -> list[Text]:
    """What to classify: the arguments, or lines of standard input."""
    if not pair:
        return [*arguments] if arguments else [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if len(arguments) not in (0, 2):
        raise SystemExit("this model compares two texts: give both")
    if arguments:
        return [(arguments[0], arguments[1])]
    pairs: list[Text] = []
    for number, line in enumerate(sys.stdin, start=1):
        first, tab, second = line.rstrip("\n").partition("\t")
        if not tab:
            raise SystemExit(f"line {number}: this model compares two texts: put a tab between them")
        pairs.append((first, second))
    return pairs


def main(arguments: list[str]) -> None:
    classifier = Classifier()
    texts = texts_of(arguments, classifier.pair)
    for text in texts:  # one by one: a quantized model's answer may depend on what shares its batch
        label, score = classifier([text])[0]
        print(f"{label}\t{score:.4f}\t{text if isinstance(text, str) else ' | '.join(text)}")


if __name__ == "__main__":
    main(sys.argv[1:])
