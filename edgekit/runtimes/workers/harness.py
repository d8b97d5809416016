"""What every worker does around its runtime: read JOB.json, warm up, time, answer in RESULT.json.

Workers import it as a neighbour (`import harness`): the folder is pushed to a device as it is, without edgekit. Only
the standard library is needed here. Formats: `edgekit/jobs.py`.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else importing onnxruntime tells its makers

STEADY = 0.05  # two windows of warm-up whose medians differ by less are steady
WARMUP_SECONDS = 1.0  # at most
MARK = (-77001, -77002)  # closing these file numbers marks the start and end of one inference for the counting plugin
PR_SET_PDEATHSIG = 1

Timed = tuple[list[float], list[float]]


class JobError(Exception):
    """A job that cannot be done; `kind` is for programs, the message for people."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Stopwatch:
    """Wall and CPU milliseconds (of the whole process, all threads) of each call; garbage collection is off."""

    def __init__(self, run: Callable[[Any], Any]) -> None:
        self.run = run
        self.wall: list[float] = []
        self.cpu: list[float] = []
        gc.collect()
        gc.freeze()
        gc.disable()

    def time(self, feeds: Iterable[Any]) -> None:
        run, wall, cpu = self.run, self.wall, self.cpu
        for feed in feeds:
            cpu_start, start = time.process_time_ns(), time.perf_counter_ns()
            run(feed)
            end, cpu_end = time.perf_counter_ns(), time.process_time_ns()
            wall.append((end - start) / 1e6)
            cpu.append((cpu_end - cpu_start) / 1e6)

    @property
    def found(self) -> dict[str, list[float]]:
        return {"samples_ms": self.wall, "cpu_ms": self.cpu}


def execute(
    job: dict[str, Any],
    rows: Sequence[Any],
    make: Callable[[list[Any]], Any],
    run: Callable[[Any], Any],
    length: Callable[[Any], int],
) -> dict[str, Any]:
    """What the job asks for, after one first inference that is timed apart.

    `make(rows)`: a batch; `run(batch)`: its logits, a list of floats for each row, or for each of its tokens one;
    `length(row)`: its tokens.
    """
    size, mode = job["batch"], job["mode"]
    if mode not in ("predict", "latency", "serve", "count"):
        raise JobError("bad_input", f"unknown mode {mode!r}")
    try:
        chosen = [rows[at] for at in (job["items"] if job["items"] is not None else range(len(rows)))]
    except IndexError:
        raise JobError("bad_input", f"an item beyond the {len(rows)} rows") from None
    if not chosen:
        raise JobError("bad_input", "no rows")
    feeds = [make(chosen[at : at + size]) for at in range(0, len(chosen), size)] if mode != "predict" else []
    first = feeds[0] if feeds else make(chosen[:size])
    start = time.perf_counter()
    run(first)
    result: dict[str, Any] = {"first_ms": (time.perf_counter() - start) * 1e3}
    if mode == "predict":
        return result | {"logits": predict(run, rows, make, size, length)}
    if mode == "count":
        return result | count(run, feeds, job)
    result["warmup"] = warm_up(run, feeds, job["warmup"])
    watch = Stopwatch(run)
    if mode == "serve":
        serve(watch, feeds, job["reply"])
    else:
        latency(watch, feeds, job)
    return result | watch.found


def predict(
    run: Callable[[Any], Any],
    rows: Sequence[Any],
    make: Callable[[list[Any]], Any],
    batch: int,
    length: Callable[[Any], int],
) -> list[list[float]]:
    """Logits of every row (or of every token of every row), in order. Rows of like length share a batch, so that little
    is padded."""
    logits: list[list[list[float]]] = [[] for _ in rows]
    order = sorted(range(len(rows)), key=lambda at: length(rows[at]))
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        for at, row in zip(chosen, run(make([rows[at] for at in chosen])), strict=True):
            places = row[: length(rows[at])] if hasattr(row[0], "__len__") else [row]
            logits[at] = [[float(value) for value in place] for place in places]
    return [place for row in logits for place in row]


def warm_up(run: Callable[[Any], Any], feeds: Sequence[Any], least: int) -> int:
    """Run `least` inferences and then on until steady, all that within a second (one at least); how many it took."""
    begin, done, before = time.perf_counter(), 0, 0.0
    window = max(1, least // 2)
    times: list[float] = []
    while least and (not done or time.perf_counter() - begin < WARMUP_SECONDS):
        start = time.perf_counter()
        run(feeds[done % len(feeds)])
        times.append(time.perf_counter() - start)
        done += 1
        if len(times) == window:
            now = statistics.median(times)
            if done >= least and abs(now - before) < STEADY * before:
                break
            before, times = now, []
    return done


def latency(watch: Stopwatch, feeds: Sequence[Any], job: dict[str, Any]) -> None:
    """Whole passes until `seconds` (one at least), or exactly `iterations` inferences."""
    count, seconds = job["iterations"], job["seconds"]
    if count is None and seconds is None:
        raise JobError("bad_input", "latency needs seconds or iterations")
    begin = time.perf_counter()
    while len(watch.wall) < count if count is not None else not watch.wall or time.perf_counter() - begin < seconds:
        watch.time(feeds if count is None else feeds[: count - len(watch.wall)])


def serve(watch: Stopwatch, feeds: Sequence[Any], reply: int) -> None:
    """Time bursts as they are asked for on standard input ("START COUNT" a line) until it ends.

    Each burst begins with one inference that does not count: it brings back the caches that others used meanwhile. The
    answer on the file number `reply` is the burst's wall time in milliseconds.
    """
    with os.fdopen(reply, "w", buffering=1) as out:
        out.write("0\n")
        for line in sys.stdin:
            start, count = map(int, line.split())
            items = [feeds[(start + at) % len(feeds)] for at in range(count)]
            watch.run(items[0])
            watch.time(items)
            out.write(f"{sum(watch.wall[-count:])}\n")


def count(run: Callable[[Any], Any], feeds: Sequence[Any], job: dict[str, Any]) -> dict[str, Any]:
    """Run `iterations` inferences between marks that a counting emulator sees; it writes the counts itself."""
    for at in range(max(1, job["warmup"])):
        run(feeds[at % len(feeds)])
    for at in range(job["iterations"] or len(feeds)):
        feed = feeds[at % len(feeds)]
        mark(0)
        run(feed)
        mark(1)
    return {}


def mark(which: int) -> None:
    """A harmless system call that an emulator recognizes: closing a file number that cannot exist."""
    with suppress(OSError):
        os.close(MARK[which])


def die_with_parent() -> None:
    """Linux: be killed when the parent dies, also while stopped. Elsewhere a killed parent closes standard input."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def peak_rss() -> int:
    """Most bytes this process ever held. Not by getrusage on Linux: there a child starts with its parent's peak."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def answer(work: Callable[[dict[str, Any]], dict[str, Any]], job_path: str, result_path: str) -> None:
    """Write RESULT.json, with a result or an error, in one move. Whoever asked and is killed takes this along."""
    die_with_parent()
    error = None
    result: dict[str, Any] = {}
    try:
        result = work(json.loads(Path(job_path).read_text(encoding="utf-8")))
    except ImportError as missing:
        error = {"kind": "missing_runtime", "message": str(missing)}
    except MemoryError:
        error = {"kind": "out_of_memory", "message": "out of memory"}
    except JobError as failed:
        error = {"kind": failed.kind, "message": str(failed)}
    except (OSError, ValueError, KeyError, TypeError, IndexError) as wrong:
        error = {"kind": "bad_input", "message": f"{type(wrong).__name__}: {wrong}"}
    result |= {"schema": 1, "peak_rss_bytes": peak_rss(), "error": error}
    partial = Path(result_path + ".part")
    partial.write_text(json.dumps(result), encoding="utf-8")
    partial.replace(result_path)
