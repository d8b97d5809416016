"""A transport that runs nothing and answers what it is told to: for tests of what stands on a transport."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from edgekit.jobs import Completed, Fidelity, Job, Work
from edgekit.machine import Machine

__all__ = ["Answer", "Fake", "predicted", "timed"]

Answer = Mapping[str, JsonValue]  # RESULT.json's content; see `edgekit.jobs`
CYCLES = 8  # of a sitting
MACHINE = Machine(
    cpu="fake",
    arch="fake",
    cores=1,
    logical_cores=1,
    memory_bytes=1 << 30,
    isa=(),
    system="none",
    python="none",
    libraries={},
)


@dataclass
class Fake:
    """Answers each job with `answer`, or with what it returns for the job; it may raise DeviceError. In a sitting each
    member repeats its job's times. `ran`: the work so far; `versions`: of libraries, for `identity`.

    Example: `Fake(timed(2.0))`, `Fake(lambda job: predicted([[1.0, 0.0]] * len(job.inputs.texts)))`.
    """

    answer: Answer | Callable[[Job], Answer]
    name: str = "fake"
    fidelity: Fidelity = "measured"
    instructions: tuple[int, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    ran: list[Work] = field(default_factory=list)

    def identity(self, libraries: tuple[str, ...]) -> dict[str, str]:
        machine = self.probe(libraries)
        return {"cpu": machine.cpu, "isa": " ".join(machine.isa), **machine.libraries}

    def probe(self, packages: tuple[str, ...] = ()) -> Machine:
        libraries = {name: self.versions.get(name, "absent") for name in packages}
        return MACHINE.model_copy(update={"cpu": self.name, "libraries": libraries})

    def run(self, work: Work) -> Completed:
        self.ran.append(work)
        if isinstance(work, Job):
            return Completed(json.dumps(self._result(work)).encode(), 0.0, instructions=self.instructions)
        cycles = [{"start": 0, "count": work.items, "order": [], "warm": at == 0} for at in range(CYCLES)]
        members = [_repeated(self._result(job), CYCLES * work.items) for job in work.jobs]
        return Completed(json.dumps({"schema": 1, "members": members, "cycles": cycles, "error": None}).encode(), 0.0)

    def _result(self, job: Job) -> dict[str, JsonValue]:
        answer = self.answer(job) if callable(self.answer) else self.answer
        known: dict[str, JsonValue] = {
            "schema": 1,
            "runtime": {"name": self.name, "version": "0", "providers": []},
            "threads": job.threads,
            "error": None,
        }
        return known | dict(answer)


def predicted(logits: Sequence[Sequence[float]]) -> dict[str, JsonValue]:
    """The answer with these logits, one row per text."""
    return {"logits": [list(row) for row in logits]}


def timed(*milliseconds: float) -> dict[str, JsonValue]:
    """The answer of inferences that took so long, in wall and CPU time."""
    return {"samples_ms": list(milliseconds), "cpu_ms": list(milliseconds), "load_ms": 1.0, "first_ms": milliseconds[0]}


def _repeated(result: dict[str, JsonValue], count: int) -> dict[str, JsonValue]:
    """The result with each series of times repeated until it has `count` of them."""
    found = dict(result)
    for name in ("samples_ms", "cpu_ms"):
        times = result.get(name)
        if isinstance(times, list) and times:
            found[name] = [times[at % len(times)] for at in range(count)]
    return found
