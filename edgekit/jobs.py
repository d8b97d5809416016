"""What passes between a runtime and a transport: work to do in fresh processes, and what came back.

Every worker is a script without edgekit, `python WORKER JOB.json RESULT.json`, so that it can be pushed to a device; it
answers in RESULT.json and its stdout is never parsed. The formats:

    JOB.json    {"model": path, "tokenizer": path|null, "inputs": path, "threads": int, "provider": str,
                 "mode": "predict"|"latency"|"count"|"serve", "batch": int, "warmup": int, "seconds": float|null,
                 "iterations": int|null, "items": [row]|null, "phase": "prefill"|"decode"|null}
    inputs      {"kind": task, "texts": [...], "pairs": [...]|null, "max_length": int, "segments": bool, "pad_id": int,
                 "rows": [[[id], [type]]], only where they were tokenized before,
                 "pixels": {...}, only of pictures: settings for `pixels.py`; a text then is a picture's file in base64}
    RESULT.json {"schema": 1, "runtime": {"name", "version", "providers"}, "threads", "load_ms", "first_ms", "warmup",
                 "logits": [[...]] of every row, or token, "samples_ms": [...], "cpu_ms": [...], "peak_rss_bytes",
                 "error": null|{"kind", "message"}}

In latency mode consecutive items form batches; `seconds` means whole passes over the items until that long (one at
least), `iterations` means exactly so many inferences. A sitting is several jobs that take turns (`duet_worker.py`):

    JOB.json    {"members": [{"command": [...], "job": JOB}], "folder": path, "items": int, "seconds", "burst_ms",
                 "seed"}
    RESULT.json {"schema": 1, "members": [RESULT], "cycles": [{"start", "count", "order", "warm"}], "error"}
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import JsonValue

from edgekit.artifact import Artifact, TaskKind

__all__ = [
    "WORKERS",
    "Call",
    "Completed",
    "Fidelity",
    "Inputs",
    "Job",
    "Mode",
    "Phase",
    "Place",
    "Sitting",
    "TokenIds",
    "Work",
]

Mode = Literal[
    "predict", "latency", "count", "score", "dump", "generate", "bandwidth"
]  # from "score" on: runtimes/lm.py
Phase = Literal["prefill", "decode"]  # of a language model: reading a prompt, or one step after it
TokenIds = tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]  # of each row: ids, and type ids (ragged)
Fidelity = Literal["measured", "emulated"]  # emulated: right answers and instruction counts, meaningless times
WORKERS = Path(__file__).parent / "runtimes" / "workers"  # pushed to a device as it is


class Place(Protocol):
    """Where work runs: it brings things there and says by which path they are known there."""

    def python(self) -> list[str]:
        """The command that starts Python there."""

    def worker(self, name: str) -> str:
        """A script of `runtimes/workers`."""

    def artifact(self, artifact: Artifact) -> str:
        """An artifact's folder, brought there once (by its content)."""

    def inputs(self, inputs: Inputs) -> str:
        """An inputs file, brought there."""

    def bundle(self, folder: Path, digest: str) -> str:
        """Any other folder that a launcher needs (a system root, an interpreter), brought there once, by its digest."""

    def folder(self) -> str:
        """A folder that belongs to this piece of work alone and goes away with it."""


@dataclass(frozen=True)
class Inputs:
    """What is fed: texts (and second texts), and how they become tokens. `rows`: their tokens already, for a runtime
    without a tokenizer. `pixels`: of pictures, how they become pixels; a text is a picture's file in base64."""

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    max_length: int
    segments: bool = False
    pad_id: int = 0
    rows: TokenIds | None = None
    kind: TaskKind = "text-classification"
    pixels: dict[str, Any] | None = None

    def wire(self) -> dict[str, JsonValue]:
        """The inputs file's content."""
        tokens: JsonValue = [[list(ids), list(types)] for ids, types in self.rows or ()]
        return {
            "kind": self.kind,
            "texts": list(self.texts),
            "pairs": list(self.pairs) if self.pairs is not None else None,
            "max_length": self.max_length,
            "segments": self.segments,
            "pad_id": self.pad_id,
            **({"rows": tokens} if self.rows is not None else {}),
            **({"pixels": self.pixels} if self.pixels is not None else {}),
        }


@dataclass(frozen=True)
class Call:
    """How it is fed. `seconds` or `iterations` for latency; `timeout` in seconds, for the whole process; `phase`: what
    is timed of a language model."""

    mode: Mode
    threads: int
    batch: int = 1
    warmup: int = 0
    seconds: float | None = None
    iterations: int | None = None
    items: tuple[int, ...] | None = None
    timeout: float = 600.0
    phase: Phase | None = None


@dataclass(frozen=True)
class Job:
    """One process to run. `model` and `tokenizer` are paths inside the artifact's folder; `provider`: what the runtime
    computes on, in its own words; `package`: whether the worker imports edgekit, and so only runs where it is."""

    artifact: Artifact
    worker: str
    model: str
    tokenizer: str | None
    inputs: Inputs
    call: Call
    provider: str = ""
    package: bool = False

    @property
    def name(self) -> str:
        """For error texts."""
        return f"{Path(self.worker).stem} on {self.artifact.path.name}"

    @property
    def timeout(self) -> float:
        return self.call.timeout

    @property
    def threads(self) -> int:
        return self.call.threads

    @property
    def script(self) -> str:
        return self.worker

    def wire(self, place: Place) -> dict[str, JsonValue]:
        """JOB.json for that place."""
        call, folder = self.call, place.artifact(self.artifact)
        return {
            "model": f"{folder}/{self.model}" if self.model else folder,
            "tokenizer": f"{folder}/{self.tokenizer}" if self.tokenizer else None,
            "inputs": place.inputs(self.inputs),
            "threads": call.threads,
            "provider": self.provider,
            "mode": call.mode,
            "batch": call.batch,
            "warmup": call.warmup,
            "seconds": call.seconds,
            "iterations": call.iterations,
            "items": list(call.items) if call.items is not None else None,
            "phase": call.phase,
        }


@dataclass(frozen=True)
class Sitting:
    """Several jobs of one workload, loaded at the same time, that take turns in bursts of about `burst_ms`.

    `items`: batches that each of them goes through in a circle; `seconds`: how long they take turns.
    """

    jobs: tuple[Job, ...]
    items: int
    seconds: float
    timeout: float
    burst_ms: float = 15.0
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{len(self.jobs)} files by turns ({', '.join(job.artifact.path.name for job in self.jobs)})"

    @property
    def threads(self) -> int:
        return max(job.threads for job in self.jobs)

    @property
    def package(self) -> bool:
        return any(job.package for job in self.jobs)

    @property
    def script(self) -> str:
        return "duet_worker.py"

    def wire(self, place: Place) -> dict[str, JsonValue]:
        """JOB.json for that place."""
        members: list[JsonValue] = [
            {"command": [*place.python(), place.worker(job.worker)], "job": job.wire(place)} for job in self.jobs
        ]
        return {
            "members": members,
            "folder": place.folder(),
            "items": self.items,
            "seconds": self.seconds,
            "burst_ms": self.burst_ms,
            "seed": self.seed,
        }


Work = Job | Sitting


@dataclass(frozen=True)
class Completed:
    """A finished process: RESULT.json's bytes, how long the whole process took, and the end of its stderr.

    `instructions`: of each marked inference, where the launcher counts them.
    """

    raw: bytes
    seconds: float
    stderr: str = field(default="", repr=False)
    instructions: tuple[int, ...] = ()
