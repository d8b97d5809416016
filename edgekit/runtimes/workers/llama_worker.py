"""Run a GGUF classifier in llama.cpp: logits, tokens or latency, in a process of its own.

    python llama_worker.py JOB.json RESULT.json

Needs numpy and llama-cpp-python, nothing else of this package, so that it can be copied to a device.
JOB: {"model", "inputs", "threads", "mode": "predict"|"latency"|"tokenize", "batch", "warmup", "seconds",
"iterations", "items"}; "inputs" names a JSON file {"texts": [...], "pairs": [...] or null, "max_length": n}. Latency
is from token ids to logits, of consecutive items in batches: whole passes until "seconds", or "iterations" inferences.
RESULT: {"schema": 1, "runtime", "threads", "load_ms", "first_ms", "logits" | "tokens" | "samples_ms" and "cpu_ms",
"base_rss_bytes" (before the model is loaded), "peak_rss_bytes", "error": null or {"kind", "message"}}, in one move.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    import llama_cpp
except ImportError as error:  # told in RESULT.json
    missing = str(error)
else:
    missing = ""

ERROR = 4  # ggml_log_level
MAX_SEQUENCES = 64  # per batch; llama.cpp's own limit is higher, but the attention mask grows with the square
FLASH_OFF = 0  # llama_flash_attn_type: fused attention took 9 to 17% longer on texts of 12 to 16 tokens
complaints: list[str] = []  # what llama.cpp logged as an error


def remember(level: int, text: bytes, _: Any) -> None:
    """Keep llama.cpp's errors for the result; nothing goes to the terminal."""
    if level == ERROR:
        complaints.append(text.decode("utf-8", "replace").strip())


class WorkerError(Exception):
    """A job that cannot be done: `kind` is for programs, the message for people."""

    def __init__(self, kind: str, message: str) -> None:
        last = "; ".join(complaints[-3:])
        super().__init__(f"{message} ({last})" if last else message)
        self.kind = kind


class Classifier:
    """A GGUF classifier: tokens in, logits out, by llama.cpp's C interface (little Python per call)."""

    def __init__(self, path: str, threads: int, tokens: int, sequences: int) -> None:
        """`tokens`: the most of one batch. `sequences`: the most texts of one batch."""
        if not Path(path).is_file():
            raise WorkerError("bad_model", f"no file {path}")
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise WorkerError("bad_model", f"llama.cpp cannot load {path}")
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.labels = int(llama_cpp.llama_model_n_cls_out(self.model))
        self.positions = int(llama_cpp.llama_model_n_ctx_train(self.model))
        self.context = self._open(threads, tokens, sequences)
        self.batch = llama_cpp.llama_batch_init(tokens, 0, 1)
        self.prefix_space = self._meta("edgekit.prefix_space", "false") == "true"

    def _open(self, threads: int, tokens: int, sequences: int) -> Any:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = tokens  # an encoder sees its whole batch at once
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = threads
        params.embeddings = True
        params.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_RANK
        params.flash_attn_type = FLASH_OFF
        params.no_perf = True
        context = llama_cpp.llama_init_from_model(self.model, params)
        if not context:
            raise WorkerError("bad_model", "llama.cpp cannot make a context for this model")
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
            raise WorkerError("bad_input", f"llama.cpp cannot tokenize {text[:40]!r}")
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

    def infer(self, rows: list[list[int]]) -> list[NDArray[np.float32]]:
        """Logits (labels,) of each row of token ids, computed in one batch."""
        self.load(rows)
        status = llama_cpp.llama_encode(self.context, self.batch)
        if status != 0:
            raise WorkerError("inference", f"llama_encode answered {status}")
        found = [llama_cpp.llama_get_embeddings_seq(self.context, number) for number in range(len(rows))]
        if not all(found):
            raise WorkerError("inference", "llama.cpp gave no scores: is this file a classifier?")
        return [np.ctypeslib.as_array(values, (self.labels,)).copy() for values in found]


def kept(a: int, b: int, room: int) -> tuple[int, int]:
    """How much of two texts fits into `room` tokens, the longest cut first (Hugging Face tokenizers, LongestFirst)."""
    if a + b <= room:
        return a, b
    short = max(0, min(a, b, room // 2))
    long = max(0, room - short)
    return (long, short) if a > b else (short, long)


def main(job_file: Path, result_file: Path) -> int:
    """Do the job; 0 where it worked, 1 where the result holds an error."""
    result: dict[str, Any] = {}
    error = {"kind": "missing_runtime", "message": missing} if missing else None
    if not missing:
        quiet = llama_cpp.llama_log_callback(remember)
        llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        result["runtime"] = {"name": "llama.cpp", "version": llama_cpp.__version__}
        result["base_rss_bytes"] = peak_rss_bytes()
        try:
            result |= work(json.loads(job_file.read_text(encoding="utf-8")))
        except WorkerError as failed:
            error = {"kind": failed.kind, "message": str(failed)}
        except MemoryError:
            error = {"kind": "out_of_memory", "message": "out of memory"}
        except (OSError, ValueError, KeyError, TypeError, IndexError) as wrong:
            error = {"kind": "bad_input", "message": f"{type(wrong).__name__}: {wrong}"}
    write(result_file, result | {"schema": 1, "peak_rss_bytes": peak_rss_bytes(), "error": error})
    return 0 if error is None else 1


def work(job: dict[str, Any]) -> dict[str, Any]:
    """The result's fields for one job."""
    inputs = json.loads(Path(job["inputs"]).read_text(encoding="utf-8"))
    mode, threads = job["mode"], int(job.get("threads") or 0) or os.cpu_count() or 1
    if mode not in ("predict", "latency", "tokenize"):
        raise WorkerError("bad_input", f"unknown mode {mode!r}")
    if not inputs["texts"]:
        raise WorkerError("bad_input", "no texts")
    size = max(1, min(int(job.get("batch") or 1), MAX_SEQUENCES, len(inputs["texts"])))
    start = time.perf_counter_ns()
    classifier = Classifier(job["model"], threads, int(inputs["max_length"]) * size, size)
    base = {"threads": threads, "load_ms": milliseconds(start)}
    rows = encode_all(classifier, inputs)
    if mode == "tokenize":
        return base | {"tokens": rows}
    items = job.get("items")
    chosen = [rows[at] for at in items] if items is not None else rows
    start = time.perf_counter_ns()
    classifier.infer(chosen[:size])
    base["first_ms"] = milliseconds(start)
    if mode == "predict":
        return base | {"logits": predict(classifier, rows, size)}
    return base | latency(classifier, [chosen[at : at + size] for at in range(0, len(chosen), size)], job)


def encode_all(classifier: Classifier, inputs: dict[str, Any]) -> list[list[int]]:
    """Token ids of every input."""
    texts, pairs, limit = inputs["texts"], inputs.get("pairs"), int(inputs["max_length"])
    if pairs is not None and len(pairs) != len(texts):
        raise WorkerError("bad_input", f"{len(texts)} texts and {len(pairs)} pairs")
    if limit > classifier.positions:
        raise WorkerError("bad_input", f"max_length {limit}, but the model has {classifier.positions} positions")
    return [classifier.encode(t, p, limit) for t, p in zip(texts, pairs or [None] * len(texts), strict=True)]


def predict(classifier: Classifier, rows: list[list[int]], size: int) -> list[list[float]]:
    """Logits of every row, computed in batches of similar length."""
    logits: list[list[float]] = [[] for _ in rows]
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    for start in range(0, len(order), size):
        chunk = order[start : start + size]
        for row, values in zip(chunk, classifier.infer([rows[row] for row in chunk]), strict=True):
            logits[row] = values.tolist()
    return logits


def latency(classifier: Classifier, feeds: list[list[list[int]]], job: dict[str, Any]) -> dict[str, list[float]]:
    """Wall and CPU milliseconds of each inference, token ids to logits."""
    if job.get("seconds") is None and job.get("iterations") is None:
        raise WorkerError("bad_input", "latency needs seconds or iterations")
    seconds, count = job.get("seconds") or 0.0, job.get("iterations")
    for at in range(int(job.get("warmup") or 0)):
        classifier.infer(feeds[at % len(feeds)])
    wall: list[float] = []
    cpu: list[float] = []
    gc.collect()
    gc.freeze()
    gc.disable()
    begin = time.perf_counter()
    while len(wall) < count if count is not None else not wall or time.perf_counter() - begin < seconds:
        for rows in feeds if count is None else feeds[: count - len(wall)]:
            cpu_start, start = time.process_time_ns(), time.perf_counter_ns()
            classifier.infer(rows)
            end, cpu_end = time.perf_counter_ns(), time.process_time_ns()
            wall.append((end - start) / 1e6)
            cpu.append((cpu_end - cpu_start) / 1e6)
    gc.enable()
    return {"samples_ms": wall, "cpu_ms": cpu}


def milliseconds(start: int) -> float:
    return (time.perf_counter_ns() - start) / 1e6


def peak_rss_bytes() -> int:
    """The most memory this process had resident. Not getrusage on Linux: that also counts the parent's before exec."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def write(path: Path, result: dict[str, Any]) -> None:
    """Write in one move, so that a reader never sees half a file."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(result), encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2])))
