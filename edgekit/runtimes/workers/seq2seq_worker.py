"""Runs an encoder-decoder model's two ONNX files: `python seq2seq_worker.py JOB.json RESULT.json`.

A row is token ids that are read and those of an answer; formats: `edgekit/runtimes/lm.py`. Answers are made as the
example program beside the files makes them. Needs onnxruntime, numpy.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import JobError, answer, execute
from lm_harness import FLOAT, score_row, write_reference
from ort_worker import open_session
from placement import own_processors

Row = tuple[list[int], list[int]]
Feed = dict[str, Any]


class Model:
    """encoder.onnx, decoder.onnx and generation.json of a folder."""

    def __init__(self, job: dict[str, Any]) -> None:
        folder = Path(job["model"])
        self.told = json.loads((folder / "generation.json").read_text(encoding="utf-8"))
        processors = own_processors(job["threads"]) if job["mode"] == "serve" else ()
        self.encoder, self.decoder = (
            open_session(str(folder / name), job["threads"], job["provider"], processors)
            for name in ("encoder.onnx", "decoder.onnx")
        )
        self.cross = [output.name for output in self.encoder.get_outputs()]
        self.past = {i.name: i.shape for i in self.decoder.get_inputs() if i.name.startswith("past_")}
        self.vocabulary = next(o.shape[-1] for o in self.decoder.get_outputs() if o.name == "logits")

    def read(self, ids: Sequence[int]) -> Feed:
        """What the decoder looks at, the same at every step."""
        array = np.array([ids], dtype=np.int64)
        mask = np.ones_like(array)
        made = _run(self.encoder, self.cross, {"input_ids": array, "attention_mask": mask})
        return {"attention_mask": mask, **dict(zip(self.cross, made, strict=True))}

    def empty(self) -> Feed:
        """The cache before the first token."""
        return {name: np.zeros((1, shape[1], 0, shape[3]), np.float32) for name, shape in self.past.items()}

    def step(self, ids: Sequence[int], source: Feed, cache: Feed) -> tuple[FLOAT, Feed]:
        """Logits (tokens, vocabulary) of these tokens, and the cache with them in it."""
        wanted = ["logits", *(name.replace("past_", "present_") for name in cache)]
        logits, *made = _run(self.decoder, wanted, {"input_ids": np.array([ids], dtype=np.int64), **source, **cache})
        return logits[0], dict(zip(cache, made, strict=True))

    def along(self, row: Row) -> FLOAT:
        """Logits (tokens, vocabulary) that predict each token of the row's answer after those before it."""
        source, target = row
        return self.step([self.told["start"], *target[:-1]], self.read(source), self.empty())[0]

    def answer(self, ids: Sequence[int], most: int) -> list[int]:
        """The greedy answer of at most so many tokens, with the one that ends it."""
        told, found = self.told, []
        source, cache, token = self.read(ids), self.empty(), self.told["start"]
        for step in range(most):
            logits, cache = self.step([token], source, cache)
            scores = logits[-1]
            scores[told["never"]] = -np.inf
            token = int(scores.argmax())
            if step == 0 and told["first"] is not None:
                token = told["first"]
            if step == most - 1 and told["last"] is not None:
                token = told["last"]
            found.append(token)
            if token in told["end"]:
                break
        return found


def _run(session: Any, wanted: list[str], feed: Feed) -> list[Any]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    try:
        return list(session.run(wanted, feed))
    except (state.InvalidArgument, state.Fail, state.RuntimeException) as error:
        raise JobError("inference", str(error)) from None


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Do the job; the content of RESULT.json."""
    import onnxruntime

    rows = read_rows(job)
    start = time.perf_counter()
    model = Model(job)
    info = {"name": "onnxruntime", "version": onnxruntime.__version__, "providers": [job["provider"]]}
    done = {"runtime": info, "threads": job["threads"], "load_ms": (time.perf_counter() - start) * 1e3}
    check_ids(rows, model.vocabulary)
    if job["mode"] == "score":
        return done | score(model, rows, job["reference"])
    if job["mode"] == "dump":
        parts = logits_of(model, rows)
        return done | {"shape": write_reference(Path(job["output"]), (sum(len(t) for _, t in rows),), parts)}
    if job["mode"] == "generate":
        return done | {"tokens": [model.answer(source, job["new_tokens"]) for source, _ in rows]}
    return done | time_phase(model, rows, job)


def read_rows(job: dict[str, Any]) -> list[Row]:
    """Token ids read, and answered. Raises JobError where there are none to work on."""
    rows = [
        (list(source), list(target)) for source, target in json.loads(Path(job["inputs"]).read_text("utf-8"))["rows"]
    ]
    answered = job["mode"] in ("score", "dump") or job.get("phase") == "decode"
    if not rows or not all(source and (target or not answered) for source, target in rows):
        raise JobError(
            "bad_input", f"{len(rows)} rows, of which each must have tokens to read{' and to answer' * answered}"
        )
    return rows


def check_ids(rows: Sequence[Row], vocabulary: Any) -> None:
    """Raises JobError for token ids that the model has not; `vocabulary` is a name where the file does not say."""
    ids = [token for row in rows for part in row for token in part]
    if min(ids) < 0 or (isinstance(vocabulary, int) and max(ids) >= vocabulary):
        what = f"token ids from {min(ids)} to {max(ids)}, but the model's vocabulary has {vocabulary}"
        raise JobError("bad_input", f"{what}: tokenized for another model?")


def logits_of(model: Model, rows: Sequence[Row]) -> Iterator[FLOAT]:
    """Of each row's answer in turn. Raises JobError where they are not finite."""
    for number, row in enumerate(rows):
        logits = model.along(row)
        if not np.isfinite(logits.max(axis=1)).all():
            raise JobError("inference", f"probabilities that are not finite in row {number}")
        yield logits


def score(model: Model, rows: Sequence[Row], reference: str | None) -> dict[str, Any]:
    """By row, for each token of its answer: see `lm_harness.score`. The reference holds (tokens, vocabulary), the
    answers one after the other."""
    known = np.load(reference, mmap_mode="r") if reference else None
    tokens = sum(len(target) for _, target in rows)
    found: dict[str, list[Any]] = {"nll": [], "top1": []} | ({"kld": [], "agreed": []} if reference else {})
    at = 0
    for (_, target), logits in zip(rows, logits_of(model, rows), strict=True):
        if known is not None and (tokens, logits.shape[1]) != known.shape:
            what = f"the reference holds {known.shape} log-probabilities, these answers {(tokens, logits.shape[1])}"
            raise JobError("bad_input", what)
        part = known[at : at + len(target)] if known is not None else None
        for name, values in score_row(logits, np.asarray(target), part).items():
            found[name].append(values.tolist())
        at += len(target)
    return found


def time_phase(model: Model, rows: list[Row], job: dict[str, Any]) -> dict[str, Any]:
    """Times by `phase`. "prefill": the encoder reads each row's text. "decode": one step, the last token of the
    answer's after all those before it; the same row each time."""
    if job["phase"] == "prefill":
        return execute(job, rows, lambda chosen: chosen[0][0], model.read, lambda row: len(row[0]))
    if job["phase"] != "decode":
        raise JobError("bad_input", f"unknown phase {job['phase']!r}")
    if any(row != rows[0] for row in rows):
        raise JobError("bad_input", "decode steps are timed after one text and answer, the same in every row")
    source, read = model.read(rows[0][0]), [model.told["start"], *rows[0][1][:-1]]
    cache = model.step(read[:-1], source, model.empty())[1] if read[:-1] else model.empty()
    return execute(job, rows, lambda chosen: read[-1:], lambda ids: model.step(ids, source, cache), lambda row: 1)


if __name__ == "__main__":
    answer(work, sys.argv[1], sys.argv[2])
