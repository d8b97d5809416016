"""Runs a GGUF encoder in llama.cpp: `python llama_worker.py JOB.json RESULT.json`. Needs llama-cpp-python.

What the file pools is its output: a classifier's logits, or an embedder's mean or first state, brought to length 1.
Beyond what every worker does, it answers in mode "tokenize" with "tokens", the ids of each row.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from harness import JobError, answer, execute, peak_rss

with contextlib.suppress(ImportError):  # `work` imports it again, where `answer` tells what is missing
    import llama_cpp

ERROR = 4  # ggml_log_level
MAX_SEQUENCES = 64  # per batch; llama.cpp's own limit is higher, but the attention mask grows with the square
FLASH_OFF = 0  # llama_flash_attn_type: fused attention took 9 to 17% longer on texts of 12 to 16 tokens
complaints: list[str] = []  # what llama.cpp logged as an error


def failure(kind: str, message: str) -> JobError:
    """The error, with llama.cpp's own words."""
    last = "; ".join(complaints[-3:])
    return JobError(kind, f"{message} ({last})" if last else message)


class Encoder:
    """A GGUF classifier or embedder: tokens in, logits or an embedding out, by llama.cpp's C interface (little Python
    per call)."""

    def __init__(self, path: str, threads: int, tokens: int, sequences: int) -> None:
        """`tokens`: the most of one batch. `sequences`: the most texts of one batch."""
        if not Path(path).is_file():
            raise failure("bad_model", f"no file {path}")
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise failure("bad_model", f"llama.cpp cannot load {path}")
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.positions = int(llama_cpp.llama_model_n_ctx_train(self.model))
        self.context = self._open(threads, tokens, sequences)
        self.embeds = llama_cpp.llama_pooling_type(self.context) != llama_cpp.LLAMA_POOLING_TYPE_RANK
        width = llama_cpp.llama_model_n_embd if self.embeds else llama_cpp.llama_model_n_cls_out
        self.width = int(width(self.model))
        self.batch = llama_cpp.llama_batch_init(tokens, 0, 1)
        self.prefix_space = self._meta("edgekit.prefix_space", "false") == "true"

    def _open(self, threads: int, tokens: int, sequences: int) -> Any:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = tokens  # an encoder sees its whole batch at once
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = threads
        params.embeddings = True
        params.flash_attn_type = FLASH_OFF
        params.no_perf = True
        context = llama_cpp.llama_init_from_model(self.model, params)
        if not context:
            raise failure("bad_model", "llama.cpp cannot make a context for this model")
        return context

    def _meta(self, key: str, default: str) -> str:
        room = ctypes.create_string_buffer(4096)
        length = llama_cpp.llama_model_meta_val_str(self.model, key.encode(), room, len(room))
        return room.value.decode("utf-8") if length >= 0 else default

    def template(self, pair: bool) -> list[str]:
        """How token ids surround one text ("A") or two ("A", "B"); BERT's way where the file does not say."""
        first, last = (int(f(self.vocab)) for f in (llama_cpp.llama_vocab_bos, llama_cpp.llama_vocab_sep))
        default = f"{first} A {last} B {last}" if pair else f"{first} A {last}"
        return self._meta("edgekit.template.pair" if pair else "edgekit.template.single", default).split()

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a bare text, without special tokens around it."""
        if self.prefix_space and text and not text[0].isspace():
            text = " " + text
        raw = text.encode("utf-8", "replace")
        room = (llama_cpp.llama_token * (len(raw) + 8))()
        count = llama_cpp.llama_tokenize(self.vocab, raw, len(raw), room, len(room), False, True)
        if count < 0:
            raise failure("bad_input", f"llama.cpp cannot tokenize {text[:40]!r}")
        return list(room[:count])

    def encode(self, text: str, pair: str | None, max_length: int) -> list[int]:
        """Token ids as the model wants them: special tokens around, cut to `max_length` from the longest text first."""
        pieces = self.template(pair is not None)
        room = max_length - sum(piece not in ("A", "B") for piece in pieces)
        a, b = self.tokenize(text), self.tokenize(pair) if pair is not None else []
        left, right = kept(len(a), len(b), room)
        bodies = {"A": a[:left], "B": b[:right]}
        return [token for piece in pieces for token in (bodies[piece] if piece in bodies else [int(piece)])]

    def load(self, rows: list[list[int]]) -> None:
        """Fill the batch with one sequence per row of token ids."""
        batch, at = self.batch, 0
        for number, ids in enumerate(rows):
            for position, token in enumerate(ids):
                batch.token[at] = token
                batch.pos[at] = position
                batch.n_seq_id[at] = 1
                batch.seq_id[at][0] = number
                batch.logits[at] = 1
                at += 1
        batch.n_tokens = at

    def infer(self, rows: list[list[int]]) -> list[list[float]]:
        """Logits (labels,) or embedding (width,) of each row of token ids, computed in one batch."""
        self.load(rows)
        status = llama_cpp.llama_encode(self.context, self.batch)
        if status != 0:
            raise failure("inference", f"llama_encode answered {status}")
        found = [llama_cpp.llama_get_embeddings_seq(self.context, number) for number in range(len(rows))]
        if not all(found):
            raise failure("inference", "llama.cpp gave no output: is this file a classifier or an embedder?")
        outputs = [values[: self.width] for values in found]
        return [normalized(output) for output in outputs] if self.embeds else outputs


def normalized(vector: list[float]) -> list[float]:
    """The vector at length 1; one of zeros stays as it is."""
    length = math.hypot(*vector) or 1.0
    return [value / length for value in vector]


def kept(a: int, b: int, room: int) -> tuple[int, int]:
    """How much of two texts fits into `room` tokens, the longest cut first (Hugging Face tokenizers, LongestFirst)."""
    if a + b <= room:
        return a, b
    short = max(0, min(a, b, room // 2))
    long = max(0, room - short)
    return (long, short) if a > b else (short, long)


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Do the job; the content of RESULT.json."""
    import llama_cpp

    quiet = llama_cpp.llama_log_callback(remember)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    inputs = json.loads(Path(job["inputs"]).read_text(encoding="utf-8"))
    base = {"runtime": {"name": "llama.cpp", "version": llama_cpp.__version__}, "base_rss_bytes": peak_rss()}
    size = max(1, min(job["batch"], MAX_SEQUENCES, len(inputs["texts"])))
    start = time.perf_counter()
    encoder = Encoder(job["model"], job["threads"], int(inputs["max_length"]) * size, size)
    base |= {"threads": job["threads"], "load_ms": (time.perf_counter() - start) * 1e3}
    rows = encode_all(encoder, inputs)
    if job["mode"] == "tokenize":
        return base | {"tokens": rows}
    return base | execute(job | {"batch": size}, rows, list, encoder.infer, len)


def remember(level: int, text: bytes, _: Any) -> None:
    """Keep llama.cpp's errors for the result; nothing goes to the terminal."""
    if level == ERROR:
        complaints.append(text.decode("utf-8", "replace").strip())


def encode_all(encoder: Encoder, inputs: dict[str, Any]) -> list[list[int]]:
    """Token ids of every input."""
    texts, pairs, limit = inputs["texts"], inputs.get("pairs"), int(inputs["max_length"])
    if pairs is not None and len(pairs) != len(texts):
        raise failure("bad_input", f"{len(texts)} texts and {len(pairs)} pairs")
    if limit > encoder.positions:
        raise failure("bad_input", f"max_length {limit}, but the model has {encoder.positions} positions")
    return [encoder.encode(t, p, limit) for t, p in zip(texts, pairs or [None] * len(texts), strict=True)]


if __name__ == "__main__":
    answer(work, sys.argv[1], sys.argv[2])
