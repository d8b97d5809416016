"""This machine: one fresh process per job, in a temporary folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgekit.artifact import library_versions
from edgekit.errors import DeviceError
from edgekit.jobs import Completed, Job
from edgekit.machine import describe

__all__ = ["LOCAL", "Local"]

TAIL = 2000  # characters of stderr that are kept
PACKAGE_ROOT = Path(__file__).resolve().parents[2]
SIGNALS = {
    signal.SIGILL: "the file or the runtime uses instructions that this processor lacks",
    signal.SIGKILL: "killed from outside: most likely out of memory",
    signal.SIGSEGV: "the runtime crashed",
    signal.SIGABRT: "the runtime gave up",
}


@dataclass(frozen=True)
class Local:
    """A subprocess on this machine."""

    python: str = sys.executable

    @property
    def name(self) -> str:
        return "local"

    def identity(self, libraries: tuple[str, ...]) -> dict[str, str]:
        """Processor, instruction sets and library versions: predictions of int8 files depend on all three."""
        machine = describe()
        return {"cpu": machine.cpu, "isa": " ".join(machine.isa), **library_versions(libraries)}

    def run(self, job: Job) -> Completed:
        """Run the job in a fresh process. Raises DeviceError where it fails (see `Transport.run`)."""
        try:
            with tempfile.TemporaryDirectory(prefix="edgekit-job-", ignore_cleanup_errors=True) as folder:
                return self._run_in(Path(folder), job)
        except OSError as error:
            raise DeviceError(f"{job.worker.stem} could not be started: {error}") from None

    def _run_in(self, folder: Path, job: Job) -> Completed:
        inputs, spec, result = folder / "inputs.json", folder / "job.json", folder / "result.json"
        inputs.write_text(json.dumps(job.inputs.wire()), encoding="utf-8")
        spec.write_text(json.dumps(job.wire(str(job.artifact.path.resolve()), str(inputs))), encoding="utf-8")
        start = time.perf_counter()
        code, stderr = self._process([self.python, str(job.worker), str(spec), str(result)], job, folder)
        seconds = time.perf_counter() - start
        if not result.exists():
            raise DeviceError(f"{job.worker.stem} failed on {job.artifact.path.name}: {_reason(code, stderr)}")
        return Completed(result.read_bytes(), seconds, stderr)

    def _process(self, command: list[str], job: Job, folder: Path) -> tuple[int, str]:
        """Exit code and end of stderr. The process leads a group of its own, which never outlives this call."""
        log = folder / "stderr.txt"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                cwd=folder,
                env=_environment(job),
                start_new_session=True,
            )
            try:
                process.wait(timeout=job.call.timeout)
            except subprocess.TimeoutExpired:
                raise DeviceError(
                    f"{job.worker.stem} on {job.artifact.path.name}: still running after {job.call.timeout:g} s, killed"
                ) from None
            finally:
                _end(process)
        return process.returncode, log.read_text(encoding="utf-8", errors="replace")[-TAIL:]


LOCAL = Local()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the whole group (a worker's own children too), then collect the process."""
    with suppress(ProcessLookupError, PermissionError):  # PermissionError: macOS says so of a group of zombies
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _environment(job: Job) -> dict[str, str]:
    """The caller's environment, with every thread pool held to the job's threads."""
    env = dict(os.environ)
    threads = str(job.call.threads)
    pools = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    env.update(dict.fromkeys(pools, threads))
    env["TOKENIZERS_PARALLELISM"] = "false"
    env.pop("OMP_WAIT_POLICY", None)  # training here waits passively; a device's runtime would not
    if job.package:
        env["PYTHONPATH"] = os.pathsep.join(p for p in (str(PACKAGE_ROOT), env.get("PYTHONPATH", "")) if p)
    return env


def _reason(code: int, stderr: str) -> str:
    """Why a process without a result ended, in a line or two."""
    last = next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "")
    if code < 0:
        name = signal.Signals(-code).name
        why = SIGNALS.get(signal.Signals(-code), "ended by a signal")
        return f"{why} ({name})" + (f": {last}" if last else "")
    return last or f"exit code {code} and no result"
