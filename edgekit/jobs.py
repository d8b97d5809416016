"""The one thing that passes between a runtime and a transport: a job, and what came back.

A job is one fresh process: `python WORKER JOB.json RESULT.json`. The worker is a script of its own (no edgekit), so
that it can be pushed to a device; it answers in RESULT.json and its stdout is never parsed. The formats:

    JOB.json    {"model": path, "tokenizer": path|null, "inputs": path, "threads": int, "mode": "predict"|"latency",
                 "batch": int, "warmup": int, "seconds": float|null, "iterations": int|null, "items": [row]|null}
    inputs      {"texts": [...], "pairs": [...]|null, "max_length": int, "segments": bool, "pad_id": int}
    RESULT.json {"schema": 1, "runtime": {"name", "version", "providers"}, "threads", "load_ms", "first_ms",
                 "logits": [[...]], "samples_ms": [...], "cpu_ms": [...], "peak_rss_bytes",
                 "error": null|{"kind", "message"}}

In latency mode consecutive items form batches; `seconds` means whole passes over the items until that long (one at
least), `iterations` means exactly so many inferences.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from edgekit.artifact import Artifact

__all__ = ["Call", "Completed", "Inputs", "Job", "Mode"]

Mode = Literal["predict", "latency"]


@dataclass(frozen=True)
class Inputs:
    """What is fed: texts (and second texts), and how they become tokens."""

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    max_length: int
    segments: bool = False
    pad_id: int = 0

    def wire(self) -> dict[str, JsonValue]:
        """The inputs file's content."""
        return {
            "texts": list(self.texts),
            "pairs": list(self.pairs) if self.pairs is not None else None,
            "max_length": self.max_length,
            "segments": self.segments,
            "pad_id": self.pad_id,
        }


@dataclass(frozen=True)
class Call:
    """How it is fed. `seconds` or `iterations` for latency; `timeout` in seconds, for the whole process."""

    mode: Mode
    threads: int
    batch: int = 1
    warmup: int = 0
    seconds: float | None = None
    iterations: int | None = None
    items: tuple[int, ...] | None = None
    timeout: float = 600.0


@dataclass(frozen=True)
class Job:
    """One process to run. `model` and `tokenizer` are paths inside the artifact's folder, which is what a transport
    pushes (by the artifact's key, once); `package`: whether the worker may import edgekit."""

    artifact: Artifact
    worker: Path
    model: str
    tokenizer: str | None
    inputs: Inputs
    call: Call
    package: bool = False

    def wire(self, folder: str, inputs: str) -> dict[str, JsonValue]:
        """JOB.json, where the artifact lies at `folder` and the inputs file at `inputs` (both there, not here)."""
        call = self.call
        return {
            "model": f"{folder}/{self.model}" if self.model else folder,
            "tokenizer": f"{folder}/{self.tokenizer}" if self.tokenizer else None,
            "inputs": inputs,
            "threads": call.threads,
            "mode": call.mode,
            "batch": call.batch,
            "warmup": call.warmup,
            "seconds": call.seconds,
            "iterations": call.iterations,
            "items": list(call.items) if call.items is not None else None,
        }


@dataclass(frozen=True)
class Completed:
    """A finished process: RESULT.json's bytes, how long the whole process took, and the end of its stderr."""

    raw: bytes
    seconds: float
    stderr: str = field(default="", repr=False)
