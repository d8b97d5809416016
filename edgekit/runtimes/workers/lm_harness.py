"""What every worker of a language model does around its runtime: score windows, dump, continue, time steps.

Token ids come in, never texts, so that every runtime sees the same. Beside `harness.py`, numpy is needed here.
Formats: `edgekit/runtimes/lm.py`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from harness import JobError, execute
from numpy.typing import NDArray

FLOAT = NDArray[np.float32]
PIECE = 16  # rows of logits that are worked on at a time: (16, vocabulary) and a few copies of it
FULL_BYTES = 1 << 30  # of log-probabilities in float32, at most


class Decoder(Protocol):
    """A loaded model and its KV cache."""

    def feed(self, ids: Sequence[int], wanted: int) -> None:
        """Run the model on `ids` after what the cache holds, to the end; logits are kept of the last `wanted`."""

    def logits(self) -> FLOAT:
        """(wanted, vocabulary) of the last feed."""

    def rewind(self, length: int) -> None:
        """Cut the cache back to its first `length` tokens."""


@dataclass(frozen=True)
class Need:
    """What a job asks of a model: `tokens` in the cache, `outputs` (most logits of one feed), and its largest id."""

    tokens: int
    outputs: int
    highest: int

    def check(self, vocabulary: int, positions: int) -> None:
        """Raises JobError for what the model cannot take; `positions` 0: it has no limit."""
        if 0 < positions < self.tokens:
            raise JobError("bad_input", f"{self.tokens} tokens, but the model's context is {positions}")
        if self.highest >= vocabulary:
            what = f"token id {self.highest}, but the model's vocabulary has {vocabulary}: tokenized for another model?"
            raise JobError("bad_input", what)


Opener = Callable[[dict[str, Any], Need], Decoder]


def perform(job: dict[str, Any], opener: Opener) -> dict[str, Any]:
    """Load the model and do what the job asks for; the content of RESULT.json but the runtime's name."""
    rows = read_rows(job)
    mode = job["mode"]
    scored_from = job.get("scored_from", 1)
    longest = max(len(row) for row in rows)
    scoring = mode in ("score", "dump")
    need = Need(
        tokens=longest + (job["new_tokens"] if mode == "generate" else 0),
        outputs=longest - scored_from if scoring else 1,
        highest=max(max(row) for row in rows),
    )
    start = time.perf_counter()
    decoder = opener(job, need)
    done = {"threads": job["threads"], "load_ms": (time.perf_counter() - start) * 1e3}
    if mode == "score":
        return done | score(decoder, rows, scored_from, job["reference"])
    if mode == "dump":
        return done | dump(decoder, rows, scored_from, Path(job["output"]))
    if mode == "generate":
        return done | {"tokens": [generate(decoder, row, job["new_tokens"]) for row in rows]}
    return done | time_steps(decoder, rows, job)


def read_rows(job: dict[str, Any]) -> list[list[int]]:
    """Token ids of every window, prompt or step. Raises JobError where there is nothing to do with one."""
    rows = [list(ids) for ids, _ in json.loads(Path(job["inputs"]).read_text(encoding="utf-8"))["rows"]]
    least = job.get("scored_from", 1) + 1 if job["mode"] in ("score", "dump") else 1
    least = 2 if job.get("phase") == "decode" else least
    if not rows or min(len(row) for row in rows) < least:
        raise JobError("bad_input", f"{len(rows)} rows of token ids, of which each must have {least} or more")
    if min(min(row) for row in rows) < 0:
        raise JobError("bad_input", "a negative token id")
    return rows


def run(decoder: Decoder, row: Sequence[int], scored_from: int) -> FLOAT:
    """Logits (len(row) - scored_from, vocabulary) that predict the row's tokens from `scored_from` on."""
    decoder.rewind(0)
    decoder.feed(row[:-1], len(row) - scored_from)
    return decoder.logits()


def log_softmax(logits: FLOAT) -> FLOAT:
    """Log-probabilities (n, vocabulary) in nats, as float32; summed in float64."""
    shifted = logits.astype(np.float32) - logits.max(axis=1, keepdims=True)
    total = np.exp(shifted).sum(axis=1, keepdims=True, dtype=np.float64)
    return np.asarray(shifted - np.log(total), dtype=np.float32)


def pieces(count: int) -> Iterator[slice]:
    return (slice(at, min(at + PIECE, count)) for at in range(0, count, PIECE))


def score(decoder: Decoder, rows: list[list[int]], scored_from: int, reference: str | None) -> dict[str, Any]:
    """By row, for each scored token: "nll" (nats), "top1" (the likeliest token), and with a reference "kld" (KL
    divergence of this model's distribution from the reference's, nats) and "agreed" (whether the likeliest token is the
    reference's too)."""
    known = np.load(reference, mmap_mode="r") if reference else None
    found: dict[str, list[Any]] = {"nll": [], "top1": []} | ({"kld": [], "agreed": []} if reference else {})
    for number, row in enumerate(rows):
        logits = run(decoder, row, scored_from)
        if known is not None and (len(rows), *logits.shape) != known.shape:
            what = (
                f"the reference holds {known.shape} log-probabilities, these windows have {(len(rows), *logits.shape)}"
            )
            raise JobError("bad_input", what)
        row_scores = score_row(logits, np.asarray(row[scored_from:]), known[number] if known is not None else None)
        if not np.isfinite(row_scores["nll"]).all():
            raise JobError("inference", f"probabilities that are not finite in window {number}")
        for name, values in row_scores.items():
            found[name].append(values.tolist())
    return found


def score_row(logits: FLOAT, targets: NDArray[np.int64], known: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
    """The figures of one row, (tokens,) each."""
    parts: dict[str, list[NDArray[Any]]] = {}
    for piece in pieces(len(targets)):
        mine = log_softmax(logits[piece])
        at = np.arange(len(mine))
        top1 = mine.argmax(axis=1)
        part = {"nll": -mine[at, targets[piece]], "top1": top1}
        if known is not None:
            theirs = known[piece].astype(np.float32)
            if known.dtype == np.float16:  # rounded, they no longer sum to one
                theirs = log_softmax(theirs)
            part["kld"] = (np.exp(theirs) * (theirs - mine)).sum(axis=1, dtype=np.float64)
            part["agreed"] = theirs[at, top1] >= theirs.max(axis=1)
        for name, values in part.items():
            parts.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}


def dump(decoder: Decoder, rows: list[list[int]], scored_from: int, output: Path) -> dict[str, Any]:
    """Write log-probabilities (rows, scored tokens, vocabulary) as `write_reference` does, window by window."""
    if len({len(row) for row in rows}) > 1:
        raise JobError("bad_input", "windows of different lengths do not make one reference")
    parts = (run(decoder, row, scored_from) for row in rows)
    return {"shape": write_reference(output, (len(rows), len(rows[0]) - scored_from), parts)}


def write_reference(output: Path, places: Sequence[int], parts: Iterable[FLOAT]) -> list[int]:
    """Write log-probabilities of logits (n, vocabulary) that come in parts, as a .npy file (*places, vocabulary): in
    float32, or in float16 where that would be more than a gigabyte (which adds about 1e-5 nats to a KL divergence).
    Returns its shape."""
    shape: list[int] = []
    kind: np.dtype[Any] = np.dtype(np.float32)
    with output.open("wb") as file:
        for number, logits in enumerate(parts):
            if not shape:
                shape = [*places, logits.shape[1]]
                kind = np.dtype(np.float32 if 4 * math.prod(shape) <= FULL_BYTES else np.float16)
                header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": tuple(shape)}
                np.lib.format.write_array_header_1_0(file, header)
            for piece in pieces(len(logits)):
                values = log_softmax(logits[piece])
                if not np.isfinite(values.max(axis=1)).all():
                    raise JobError("inference", f"probabilities that are not finite in window {number}")
                file.write(values.astype(kind).tobytes())
    return shape


def generate(decoder: Decoder, prompt: Sequence[int], count: int) -> list[int]:
    """The `count` tokens that greedily continue the prompt; an end-of-text token does not end them."""
    decoder.rewind(0)
    decoder.feed(prompt, 1)
    found = [int(decoder.logits()[0].argmax())]
    while len(found) < count:
        decoder.feed(found[-1:], 1)
        found.append(int(decoder.logits()[0].argmax()))
    return found


def time_steps(decoder: Decoder, rows: list[list[int]], job: dict[str, Any]) -> dict[str, Any]:
    """Times by `phase`. "prefill": each row is a prompt that is read at once. "decode": each row ends in the one token
    that is fed after all those before it, the same in every row, so that each step finds a cache of that length."""
    if job["batch"] != 1:
        raise JobError("bad_input", "language models are timed one sequence at a time")
    if job["phase"] not in ("prefill", "decode"):
        raise JobError("bad_input", f"unknown phase {job['phase']!r}")
    kept = len(rows[0]) - 1 if job["phase"] == "decode" else 0  # tokens that stay in the cache
    context = rows[0][:kept]
    if any(row[:kept] != context for row in rows):
        raise JobError("bad_input", "decode steps are timed after one context, the same in every row")
    if context:
        decoder.feed(context, 1)

    def step(row: Sequence[int]) -> None:
        decoder.rewind(kept)
        decoder.feed(row[kept:], 1)

    return execute(job, rows, lambda chosen: chosen[0], step, len)
