"""Answer questions from texts with the model in this folder. Needs only: pip install onnxruntime tokenizers numpy

    python answer.py "Where is the bank?" "The bank is in Leeds."     a question, and the text that holds the answer
    python answer.py "Where is the bank?" < text.txt                  the text from standard input

Prints the answer, its first character in the text and its score, tab-separated. A text longer than the model takes is
read in overlapping windows. As a module: Answerer(folder)("Where is the bank?", text) gives ("Leeds", 15, 9.71).
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


class Answerer:
    """A model folder: model.onnx, tokenizer.json and labels.json."""

    def __init__(self, folder: Path = HERE, threads: int = 0) -> None:
        """`threads`: 0 lets onnxruntime choose."""
        self.settings: dict[str, Any] = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        model = str(folder / "model.onnx")
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.names = {i.name for i in self.session.get_inputs()}

    def __call__(self, question: str, text: str) -> tuple[str, int, float]:
        """The answer as the text has it, where it begins, and the sum of its two logits; "" where there is none."""
        encoding = self.tokenizer.encode(question, text)
        best = ("", 0, -np.inf)
        for tokens in self.windows(encoding.sequence_ids):
            logits = self.logits([encoding.ids[t] for t in tokens], [encoding.type_ids[t] for t in tokens])
            told = [  # columns of the window that hold a part of the text
                column
                for column, token in enumerate(tokens)
                if encoding.sequence_ids[token] == 1 and text[slice(*encoding.offsets[token])].strip()
            ]
            for at, first in enumerate(told):
                ends = told[at : at + self.settings["longest_answer"]]
                last = max(ends, key=lambda column: logits[column, 1])
                score = float(logits[first, 0] + logits[last, 1])
                if score > best[2]:
                    begin, end = encoding.offsets[tokens[first]][0], encoding.offsets[tokens[last]][1]
                    answer = text[begin:end]
                    best = (answer.strip(), begin + len(answer) - len(answer.lstrip()), score)
        return best

    def windows(self, kinds: list[int | None]) -> list[list[int]]:
        """Tokens of each window, of tokens of the question (0), the text (1) and between them (None): the question, at
        most half of the room, and a part of the text."""
        asked, told = ([token for token, kind in enumerate(kinds) if kind == which] for which in (0, 1))
        if not told:
            return []
        room = self.settings["max_length"] - (len(kinds) - len(asked) - len(told))
        dropped = set(asked[room // 2 :])
        head = [token for token in range(told[0]) if token not in dropped]
        room -= len(asked) - len(dropped)
        shared = min(self.settings["overlap"], room // 2)
        starts = range(0, max(1, len(told) - shared), room - shared)
        return [[*head, *told[at : at + room], *range(told[-1] + 1, len(kinds))] for at in starts]

    def logits(self, row: list[int], types: list[int]) -> Any:
        """Of each token that an answer begins there, and that it ends there: (tokens, 2)."""
        ids = np.array([row], dtype=np.int64)
        arrays = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.array([types])}
        return self.session.run(["logits"], {name: arrays[name] for name in self.names})[0][0]


def main(arguments: list[str]) -> None:
    if len(arguments) not in (1, 2):
        sys.exit(__doc__)
    question, text = arguments if len(arguments) == 2 else (arguments[0], sys.stdin.read())
    answer, begin, score = Answerer()(question, text)
    print(f"{answer}\t{begin}\t{score:.4f}")


if __name__ == "__main__":
    main(sys.argv[1:])
