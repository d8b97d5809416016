"""What a runtime is: a format's way to make a job of an artifact, and to read what came back."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from pydantic import ConfigDict, Field, JsonValue, ValidationError

from edgekit.artifact import Artifact, Frozen, Task
from edgekit.data.pictures import encoded_picture
from edgekit.data.table import Table
from edgekit.errors import DeviceError
from edgekit.jobs import Call, Inputs, Job, TokenIds
from edgekit.model_config import padding_of
from edgekit.pictures import settings_of
from edgekit.tasks.base import Tokens
from edgekit.tasks.encoders import ENCODER_TASKS, examples_of, of_pictures, rows_of

__all__ = [
    "Cycle",
    "MissingRuntimeError",
    "Runtime",
    "Samples",
    "WorkerRuntime",
    "Workload",
    "inputs_of",
    "read_sitting",
    "task_of",
]

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Workload(Frozen):
    """What is measured: shapes, threads, and how long. The defaults measure five files in about a minute."""

    batch: int = Field(1, ge=1, le=4096, description="examples per inference")
    length: int | None = Field(
        None, ge=2, le=8192, description="fixed length in tokens; without it, the data's own lengths"
    )
    items: int = Field(32, ge=1, le=100_000, description="examples that are timed, spread over the data's lengths")
    threads: int = Field(0, ge=0, le=1024, description="threads of an inference; 0: physical cores, at most 4")
    rounds: int = Field(
        12, ge=2, le=1000, description="rounds, each of fresh processes that take turns; a gate needs 9 or more"
    )
    seconds: float = Field(1.5, gt=0, le=3600, description="seconds that the files of a round take turns")
    budget: float = Field(
        60.0, ge=0, description="seconds for more rounds, until every rule on latency or speed-up is decided"
    )
    warmup: int = Field(16, ge=0, le=100_000, description="fewest inferences before timing; it goes on until steady")
    at_once: int = Field(
        8, ge=3, le=64, description="processes in memory at a time: the baseline's two, and two of each file if all fit"
    )
    throughput_batches: tuple[int, ...] = Field((8,), description="batches of the throughput figures")
    windows: int = Field(
        64,
        ge=1,
        le=100_000,
        description="windows of text that a language model is scored on, or texts of a text-to-text model, at most",
    )
    pairs: str = Field(
        "",
        description="minimal pairs that a language model is scored on, at most 2,000: a file or folder of "
        "sentence_good and sentence_bad (BLiMP)",
    )
    seed: int = Field(0, ge=0, description="order of turns and items")


@dataclass(frozen=True)
class Samples:
    """A finished job: `logits` (places, width) float32 where it predicted, `wall_ms` and `cpu_ms` (inferences,) where
    it was timed (CPU time of the whole process, all threads; empty where there is no such clock). Times in
    milliseconds, memory in bytes (0: unknown)."""

    runtime: str
    version: str
    providers: tuple[str, ...]
    threads: int
    load_ms: float
    first_ms: float
    logits: NDArray[np.float32] | None
    wall_ms: NDArray[np.float64]
    cpu_ms: NDArray[np.float64]
    peak_rss_bytes: int


class MissingRuntimeError(DeviceError):
    """Raised where the machine that ran the job lacks the runtime, or the provider that was asked for."""


class Runtime(Protocol):
    """How a file is executed. `provider`: what it computes on, in its own words; `libraries`: distributions whose
    versions decide the numbers; `batches`: whether it can be timed on several examples at once; `install`: the command
    that installs it on this machine ("": edgekit brings it); `package`: whether its worker imports edgekit, and so runs
    only where that is."""

    @property
    def name(self) -> str: ...
    @property
    def provider(self) -> str: ...
    @property
    def libraries(self) -> tuple[str, ...]: ...
    @property
    def batches(self) -> bool: ...
    @property
    def install(self) -> str: ...
    @property
    def package(self) -> bool: ...

    def job(self, artifact: Artifact, inputs: Inputs, call: Call) -> Job:
        """The process to run. Raises DeviceError where the artifact lacks a file that it needs."""

    def parse(self, raw: bytes) -> Samples:
        """Read RESULT.json. Raises DeviceError for an error in it, a broken one, or numbers that are not finite;
        MissingRuntimeError where the error is that."""


class _Wire(Frozen):
    """Base of RESULT.json's parts: a worker newer than this may say more."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Runtime(_Wire):
    name: str
    version: str
    providers: tuple[str, ...] = ()


class _Error(_Wire):
    kind: str
    message: str


class _Result(_Wire):
    runtime: _Runtime | None = None
    threads: int = 0
    load_ms: float = 0.0
    first_ms: float = 0.0
    logits: list[list[float]] | None = None
    samples_ms: list[float] | None = None
    cpu_ms: list[float] | None = None
    peak_rss_bytes: int = 0
    error: _Error | None = None


@dataclass(frozen=True)
class WorkerRuntime:
    """A runtime whose worker is a script in `workers/`; `model` and `tokenizer` are file names in the artifact.

    The others: see `Runtime`.
    """

    name: str
    libraries: tuple[str, ...]
    worker: str
    model: str
    tokenizer: str | None
    provider: str = ""
    install: str = ""
    package: bool = False
    batches: bool = True

    def job(self, artifact: Artifact, inputs: Inputs, call: Call) -> Job:
        """See `Runtime.job`."""
        tokenizer = self.tokenizer if inputs.pixels is None else None
        for name in filter(None, (self.model, tokenizer)):
            if not (artifact.path / name).is_file():
                raise DeviceError(f"{artifact.path}: no {name}, which {self.name} needs")
        return Job(artifact, self.worker, self.model, tokenizer, inputs, call, self.provider, self.package)

    def parse(self, raw: bytes) -> Samples:
        """See `Runtime.parse`."""
        import numpy as np

        result = _read(_Result, raw, self.name)
        if result.error is not None:
            kind = MissingRuntimeError if result.error.kind == "missing_runtime" else DeviceError
            raise kind(f"{self.name}: {result.error.message} ({result.error.kind})")
        if result.runtime is None:
            raise DeviceError(f"{self.name}: broken result (no runtime in it)")
        logits = None if result.logits is None else np.asarray(result.logits, dtype=np.float32)
        wall, cpu = (np.asarray(part or [], dtype=np.float64) for part in (result.samples_ms, result.cpu_ms))
        for what, numbers in (("logits", logits), ("times", wall)):
            if numbers is not None and not np.isfinite(numbers).all():
                raise DeviceError(f"{self.name}: {what} that are not finite", hint="the file computes NaN or infinity")
        info = result.runtime
        return Samples(
            info.name,
            info.version,
            info.providers,
            result.threads,
            result.load_ms,
            result.first_ms,
            logits,
            wall,
            cpu,
            result.peak_rss_bytes,
        )


class Cycle(_Wire):
    """Each member of a sitting did `count` items from `start` on, in this `order`; a `warm` one does not count."""

    start: int
    count: int
    order: tuple[int, ...]
    warm: bool = False


class _Sitting(_Wire):
    members: list[JsonValue] = []
    cycles: tuple[Cycle, ...] = ()
    error: _Error | None = None


def read_sitting(raw: bytes) -> tuple[list[bytes], tuple[Cycle, ...]]:
    """RESULT.json of a sitting: each member's own RESULT.json, for its runtime to parse, and the cycles.

    Raises DeviceError where the sitting itself failed; what failed a member, its runtime says.
    """
    result = _read(_Sitting, raw, "duet_worker")
    if result.error is not None:
        raise DeviceError(f"duet_worker: {result.error.message} ({result.error.kind})")
    return [json.dumps(member).encode() for member in result.members], result.cycles


W = TypeVar("W", bound=_Wire)


def _read(kind: type[W], raw: bytes, name: str) -> W:
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise DeviceError(f"{name}: broken result ({first['loc']}: {first['msg']})") from None


def task_of(artifact: Artifact) -> Task:
    """What the artifact is for. Raises DeviceError where its manifest does not say."""
    if artifact.task is None:
        raise DeviceError(f"{artifact.path}: its manifest names no task, so it cannot be fed")
    return artifact.task


def inputs_of(artifact: Artifact, table: Table, length: int | None = None, *, one: bool = True) -> Inputs:
    """A table's rows as this artifact takes them, truncated at `length` tokens (without it, at the task's own); a
    picture has as many as it has.

    `one`: of a task that cuts a text into several rows, the first of each, which is a longest one; else all of them.
    """
    task = task_of(artifact)
    if of_pictures(task.kind):
        files = tuple(b64encode(encoded_picture(table, row)).decode("ascii") for row in range(len(table)))
        return Inputs(files, None, task.max_length, kind=task.kind, pixels=settings_of(artifact.path))
    longest, rows = length or task.max_length, rows_of(table, task.kind)
    return Inputs(
        rows.texts,
        rows.pairs,
        longest,
        task.segments,
        padding_of(artifact.path),
        _cut(artifact, table, task.model_copy(update={"max_length": longest}), one=one),
        kind=task.kind,
    )


def _cut(artifact: Artifact, table: Table, task: Task, *, one: bool) -> TokenIds | None:
    """Token ids of the rows that a task cuts texts into; None where it leaves them whole."""
    if task.kind not in ENCODER_TASKS or not ENCODER_TASKS[task.kind].cuts:
        return None
    examples = examples_of(artifact.path, table, task)
    assert isinstance(examples.encoded, Tokens)
    ids, types = examples.encoded.ids, examples.encoded.types
    rows = [row for unit in range(len(table)) for row in (examples.fed([unit])[:1] if one else examples.fed([unit]))]
    return tuple((tuple(ids[row]), tuple(types[row] if types else [0] * len(ids[row]))) for row in rows)
