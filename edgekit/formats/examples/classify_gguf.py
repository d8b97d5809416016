"""Classify texts with the model in this folder. Needs only: pip install llama-cpp-python

    python classify.py "some text"                     one text
    python classify.py "first text" "second text"      a pair of texts, for a model of pairs; else two texts
    python classify.py < texts.txt                     a text a line (for pairs: the two texts with a tab between)

Prints label, score and text, tab-separated. As a module: Classifier(folder)(["some text"]) -> [("label", 0.98)].
The file holds its own tokenizer and labels.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import llama_cpp as llama

HERE = Path(__file__).resolve().parent
Text = str | tuple[str, str]
QUIET = llama.llama_log_callback(lambda level, text, data: None)


class Classifier:
    """A model folder: model.gguf."""

    def __init__(self, folder: Path = HERE, threads: int = 0) -> None:
        """`threads`: 0 takes one per processor, at most 4."""
        llama.llama_log_set(QUIET, ctypes.c_void_p(0))
        llama.llama_backend_init()
        path = folder / "model.gguf"
        self.model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"cannot load {path}")
        self.vocab = llama.llama_model_get_vocab(self.model)
        self.max_length = llama.llama_model_n_ctx_train(self.model)
        count = llama.llama_model_n_cls_out(self.model)
        self.labels = [llama.llama_model_cls_label(self.model, i).decode() for i in range(count)]
        options = llama.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = self.max_length
        options.n_threads = options.n_threads_batch = threads or min(4, os.cpu_count() or 1)
        options.embeddings = True
        options.pooling_type = llama.LLAMA_POOLING_TYPE_RANK  # the classification head
        options.flash_attn_type = 0  # off: slower on texts this short
        self.context = llama.llama_init_from_model(self.model, options)
        self.batch = llama.llama_batch_init(self.max_length, 0, 1)
        self.pair = self.note("edgekit.pair") == "true"

    def note(self, key: str) -> str:
        """A string from the file's metadata."""
        room = ctypes.create_string_buffer(1024)
        llama.llama_model_meta_val_str(self.model, key.encode(), room, len(room))
        return room.value.decode()

    def tokens(self, text: str) -> list[int]:
        """Token ids of a bare text."""
        if self.note("edgekit.prefix_space") == "true" and text and not text[0].isspace():
            text = " " + text
        raw = text.encode("utf-8", "replace")
        room = (llama.llama_token * (len(raw) + 8))()
        return list(room[: llama.llama_tokenize(self.vocab, raw, len(raw), room, len(room), False, True)])

    def encode(self, first: str, second: str | None = None) -> list[int]:
        """Token ids with the special tokens around them; of two texts the longer one is cut first."""
        template = self.note("edgekit.template.single" if second is None else "edgekit.template.pair").split()
        a, b = self.tokens(first), self.tokens(second or "")
        room = self.max_length - sum(piece not in ("A", "B") for piece in template)
        if len(a) + len(b) > room:
            short = min(len(a), len(b), room // 2)
            a, b = (a[: room - short], b[:short]) if len(a) > len(b) else (a[:short], b[: room - short])
        texts = {"A": a, "B": b}
        return [token for piece in template for token in (texts[piece] if piece in texts else [int(piece)])]

    def probabilities(self, text: Text) -> dict[str, float]:
        """How likely each label is (softmax of the logits)."""
        ids = self.encode(*text) if isinstance(text, tuple) else self.encode(text)
        self.batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            self.batch.token[i], self.batch.pos[i], self.batch.logits[i] = token, i, 1
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, 0
        if llama.llama_encode(self.context, self.batch) != 0:
            raise SystemExit("llama.cpp could not run the model")
        logits = llama.llama_get_embeddings_seq(self.context, 0)[: len(self.labels)]
        powers = [math.exp(value - max(logits)) for value in logits]
        return {label: power / sum(powers) for label, power in zip(self.labels, powers, strict=True)}

    def __call__(self, texts: Sequence[Text]) -> list[tuple[str, float]]:
        """The best label of each text, and its probability."""
        return [max(self.probabilities(text).items(), key=lambda item: item[1]) for text in texts]


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
    for text in texts_of(arguments, classifier.pair):
        label, score = classifier([text])[0]
        print(f"{label}\t{score:.4f}\t{text if isinstance(text, str) else ' | '.join(text)}")


if __name__ == "__main__":
    main(sys.argv[1:])
