"""Classify pictures with the model in this folder. Needs only: pip install onnxruntime pillow numpy

    python classify_image.py cat.png dog.jpg        files of any kind that Pillow reads

Prints label, score and file, tab-separated. As a module: Classifier(folder)([data]) -> [("label", 0.98)], where `data`
are the bytes of a picture's file.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pixels

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else importing onnxruntime tells its makers
import onnxruntime

HERE = Path(__file__).resolve().parent


class Classifier:
    """A model folder: model.onnx, pixels.json and labels.json; `pixels.py` beside this program."""

    def __init__(self, folder: Path = HERE, threads: int = 0) -> None:
        """`threads`: 0 lets onnxruntime choose."""
        self.labels: list[str] = json.loads((folder / "labels.json").read_text(encoding="utf-8"))["labels"]
        self.settings = json.loads((folder / "pixels.json").read_text(encoding="utf-8"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        model = str(folder / "model.onnx")
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def probabilities(self, pictures: Sequence[bytes]) -> Any:
        """Softmax of the logits, (pictures, labels)."""
        logits = self.session.run(["logits"], {"pixel_values": pixels.batch(pictures, self.settings)})[0]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def __call__(self, pictures: Sequence[bytes]) -> list[tuple[str, float]]:
        """The best label of each picture, and its probability."""
        return [(self.labels[int(row.argmax())], float(row.max())) for row in self.probabilities(pictures)]


def main(arguments: list[str]) -> None:
    if not arguments:
        raise SystemExit("give one or more picture files")
    classifier = Classifier()
    for name in arguments:  # one by one: a quantized model's answer may depend on what shares its batch
        try:
            label, score = classifier([Path(name).read_bytes()])[0]
        except (OSError, ValueError) as error:
            raise SystemExit(f"{name}: {error}") from None
        print(f"{label}\t{score:.4f}\t{name}")


if __name__ == "__main__":
    main(sys.argv[1:])
