"""Embed texts and compare them with the model in this folder. Needs only: pip install llama-cpp-python numpy

    python embed.py "first text" "second text"       how alike two texts are: the cosine of their embeddings
    python embed.py "a text" "another" "a third"     the first text against each of the others, the likest first
    python embed.py < pairs.txt                      a pair a line, tab-separated

Prints similarity and texts, tab-separated. As a module: Embedder(folder)(texts) gives the embeddings, (texts, width)
float32, each of length 1, so that their products are the similarities. The file holds its own tokenizer.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp as llama
import numpy as np

HERE = Path(__file__).resolve().parent
QUIET = llama.llama_log_callback(lambda level, text, data: None)


class Embedder:
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
        self.width = llama.llama_model_n_embd(self.model)
        options = llama.llama_context_default_params()  # the file says how tokens are pooled
        options.n_ctx = options.n_batch = options.n_ubatch = self.max_length
        options.n_threads = options.n_threads_batch = threads or min(4, os.cpu_count() or 1)
        options.embeddings = True
        options.flash_attn_type = 0  # off: slower on texts this short
        self.context = llama.llama_init_from_model(self.model, options)
        self.batch = llama.llama_batch_init(self.max_length, 0, 1)

    def note(self, key: str) -> str:
        """A string from the file's metadata."""
        room = ctypes.create_string_buffer(1024)
        llama.llama_model_meta_val_str(self.model, key.encode(), room, len(room))
        return room.value.decode()

    def encode(self, text: str) -> list[int]:
        """Token ids with the special tokens around them; a text that is too long is cut."""
        if self.note("edgekit.prefix_space") == "true" and text and not text[0].isspace():
            text = " " + text
        raw = text.encode("utf-8", "replace")
        room = (llama.llama_token * (len(raw) + 8))()
        tokens = list(room[: llama.llama_tokenize(self.vocab, raw, len(raw), room, len(room), False, True)])
        template = self.note("edgekit.template.single").split()
        tokens = tokens[: self.max_length - len(template) + 1]
        return [token for piece in template for token in (tokens if piece == "A" else [int(piece)])]

    def __call__(self, texts: Sequence[str]) -> Any:
        """Embeddings (texts, width) float32; one text at a time, as they were measured."""
        return np.stack([self._one(self.encode(text)) for text in texts])

    def _one(self, tokens: list[int]) -> Any:
        self.batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            self.batch.token[i], self.batch.pos[i], self.batch.logits[i] = token, i, 1
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, 0
        if llama.llama_encode(self.context, self.batch) != 0:
            raise SystemExit("llama.cpp could not run the model")
        vector = np.array(llama.llama_get_embeddings_seq(self.context, 0)[: self.width], dtype=np.float32)
        return vector / (np.linalg.norm(vector) or 1.0)


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
