"""Runs several workers by turns on one device: `python duet_worker.py JOB.json RESULT.json`.

All are loaded and warm; one works while the others are stopped (SIGSTOP), so that their waiting threads take nothing
from it. A cycle lets each time the same items once, in random order; the next goes through them backwards (ABBA), so a
machine that drifts drifts for all alike. What is compared lies milliseconds apart. Formats: `edgekit/jobs.py`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from harness import answer
from placement import settle

MOST_ITEMS = 64  # in a burst


ENDS = {  # how a worker without a result ended, by its exit code
    -signal.SIGILL: ("unsupported_isa", "the file or the runtime uses instructions that this processor lacks"),
    -signal.SIGKILL: ("killed", "killed from outside: most likely out of memory"),
}


class Member:
    """A worker process that times bursts when it is told to, and is stopped otherwise."""

    def __init__(self, spec: dict[str, Any], folder: Path) -> None:
        self.result = folder / "result.json"
        folder.mkdir()
        incoming, outgoing = os.pipe()
        job = folder / "job.json"
        job.write_text(json.dumps(spec["job"] | {"mode": "serve", "reply": outgoing}), encoding="utf-8")
        command = [*spec["command"], str(job), str(self.result)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, bufsize=1, pass_fds=(outgoing,))
        os.close(outgoing)
        self.replies: IO[str] = os.fdopen(incoming)

    def get_ready(self) -> None:
        """Let it load and warm up, alone. Raises EndedError."""
        self.answered()
        self.stop()

    def burst(self, start: int, count: int) -> float:
        """Time `count` items from `start` on; milliseconds in all. Raises EndedError."""
        assert self.process.stdin is not None
        self.go()
        try:
            self.process.stdin.write(f"{start} {count}\n")
        except BrokenPipeError:
            raise EndedError from None
        elapsed = self.answered()
        self.stop()
        return elapsed

    def answered(self) -> float:
        """Wait for its answer. Raises EndedError where it ended instead."""
        line = self.replies.readline()
        if not line:
            raise EndedError
        return float(line)

    def finish(self) -> dict[str, Any]:
        """Let it write its result, and wait for its end; the result, or how it ended without one."""
        self.go()
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()
        code = self.process.wait()
        if not self.result.exists():
            kind, message = ENDS.get(code, ("crash", f"the worker ended with exit code {code}"))
            return {"error": {"kind": kind, "message": message}}
        found: dict[str, Any] = json.loads(self.result.read_text(encoding="utf-8"))
        return found

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go(self) -> None:
        self.process.send_signal(signal.SIGCONT)


class EndedError(Exception):
    """A worker that ended before it was told to; its result says why."""


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Start the members one by one (each alone while it loads), let them take turns, and collect their results.

    Where one ends early, the turns end too, and there are results of those that were started.
    """
    settle(max(spec["job"]["threads"] for spec in job["members"]))
    folder = Path(job["folder"])
    members: list[Member] = []
    cycles: list[dict[str, Any]] = []
    with suppress(EndedError):
        for number, spec in enumerate(job["members"]):
            members.append(Member(spec, folder / f"member-{number}"))
            members[-1].get_ready()
        cycles = take_turns(members, job)
    return {"members": [member.finish() for member in members], "cycles": cycles}


def take_turns(members: list[Member], job: dict[str, Any]) -> list[dict[str, Any]]:
    """Cycles until `seconds` are over; each says which items it was about and in which order the members went."""
    items, dice = job["items"], random.Random(job["seed"])
    probe = min(3, items)
    slowest = max(member.burst(0, probe) / probe for member in members)
    count = max(1, min(items, MOST_ITEMS, round(job["burst_ms"] / max(slowest, 1e-3))))
    cycles: list[dict[str, Any]] = [{"start": 0, "count": probe, "order": [], "warm": True}]
    order = list(range(len(members)))
    begin, start = time.perf_counter(), 0
    while time.perf_counter() - begin < job["seconds"] or len(cycles) < 3:
        if len(cycles) % 2:
            dice.shuffle(order)
            start += count
        else:
            order.reverse()
        for member in order:
            members[member].burst(start % items, count)
        cycles.append({"start": start % items, "count": count, "order": list(order), "warm": False})
    return cycles


if __name__ == "__main__":
    answer(work, sys.argv[1], sys.argv[2])
