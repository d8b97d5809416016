"""Asking a language model's file about token ids, in a fresh process of its own runtime, once: answers are kept.

A text-to-text model's too: its `rows` are what is read, `targets` the answers to them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from edgekit.artifact import Artifact
from edgekit.digest import digest_json
from edgekit.errors import DeviceError, StoreError, UsageError
from edgekit.jobs import Call, Mode
from edgekit.running import limit_for, read_samples, threads_for
from edgekit.runtimes import Runtimes
from edgekit.runtimes.base import Runtime, Samples
from edgekit.runtimes.lm import LM_RUNTIMES, Answers, ask, inputs_of_rows, read_answers
from edgekit.transports import LOCAL, Transport

__all__ = ["HERE", "Venue", "identity", "interrogate", "runtime_at"]

SECONDS_PER_TOKEN = 0.5  # of the time limit: generous for a small board, finite for a hung job


@dataclass(frozen=True)
class Venue:
    """Where and with what files are asked. `threads` 0: as the transport's machine has; `cache`: a folder where answers
    are kept, by files, tokens, runtime, its versions and processor."""

    transport: Transport = LOCAL
    runtimes: Runtimes = field(default_factory=lambda: LM_RUNTIMES)
    threads: int = 0
    cache: Path | None = None


HERE = Venue()


def interrogate(
    mode: Mode,
    artifact: Artifact,
    rows: Sequence[Sequence[int]],
    venue: Venue,
    *,
    targets: Sequence[Sequence[int]] | None = None,
    scored_from: int = 1,
    reference: Path | None = None,
    output: Path | None = None,
    new_tokens: int = 0,
) -> tuple[Answers, Samples]:
    """Ask a file about rows of token ids, in a fresh process of its runtime (`runtimes/lm.py` says what is answered).

    Raises UsageError for a file that none of the runtimes takes, DeviceError where the runtime fails: also for ids
    beyond the vocabulary, or rows longer than the model's context.
    """
    runtime = runtime_at(artifact, venue)
    about: dict[str, JsonValue] = {"mode": mode, "scored_from": scored_from, "new_tokens": new_tokens}
    about["reference"] = reference.parent.name if reference is not None else None
    key = digest_json(about | {"asked": identity(artifact, rows, venue, targets)})
    file = venue.cache / f"{key}.json" if venue.cache is not None else None
    if file is not None and (kept := _kept(file, runtime)) is not None:
        return kept
    transport = venue.transport
    tokens = sum(len(row) + new_tokens for row in rows) + sum(map(len, targets or ()))
    timeout = limit_for(transport, 300.0 + SECONDS_PER_TOKEN * tokens)
    call = Call(mode, venue.threads or threads_for(transport), timeout=timeout)
    job = ask(
        runtime,
        artifact,
        inputs_of_rows(rows, targets),
        call,
        scored_from=scored_from,
        reference=reference,
        output=output,
        new_tokens=new_tokens,
    )
    raw = transport.run(job).raw
    samples = read_samples(runtime, raw, transport)
    if file is not None:
        _keep(file, raw)
    return read_answers(raw, runtime.name), samples


def runtime_at(artifact: Artifact, venue: Venue) -> Runtime:
    """The runtime that executes the artifact's format there. Raises UsageError where none does."""
    if artifact.format not in venue.runtimes:
        what = f"{artifact.path.name}: no runtime for language models as {artifact.format} files on this target"
        raise UsageError(what, hint=f"it executes {', '.join(venue.runtimes) or 'none'}")
    return venue.runtimes[artifact.format]


def identity(
    artifact: Artifact, rows: Sequence[Sequence[int]], venue: Venue, targets: Sequence[Sequence[int]] | None = None
) -> JsonValue:
    """What decides the answers: the file, the tokens, and what computes where."""
    runtime = runtime_at(artifact, venue)
    where: dict[str, JsonValue] = {**venue.transport.identity(runtime.libraries)}
    return {
        "files": artifact.content,
        "rows": [list(row) for row in rows],
        **({"targets": [list(row) for row in targets]} if targets is not None else {}),
        "runtime": {"name": runtime.name, "provider": runtime.provider},
        "where": {"transport": venue.transport.name, **where},
    }


def _kept(file: Path, runtime: Runtime) -> tuple[Answers, Samples] | None:
    """Answers of the cache; None where there are none, or the file is damaged (they are then computed anew)."""
    try:
        raw = file.read_bytes()
        return read_answers(raw, runtime.name), runtime.parse(raw)
    except (FileNotFoundError, DeviceError):
        return None


def _keep(file: Path, raw: bytes) -> None:
    """Write in one piece, so that two runs may share the folder."""
    partial = file.with_suffix(f".{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(raw)
        partial.replace(file)
    except OSError as error:
        raise StoreError(f"{file.parent}: cannot be written ({error})") from None
