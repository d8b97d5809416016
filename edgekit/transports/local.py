"""This machine: one fresh process per piece of work, in a temporary folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from edgekit.artifact import Artifact, library_versions
from edgekit.digest import SHORT, digest_json
from edgekit.errors import DeviceError, UsageError
from edgekit.jobs import WORKERS, Completed, Fidelity, Inputs, Work
from edgekit.launchers import Launcher, Native
from edgekit.machine import Machine, describe
from edgekit.transports.base import TAIL, check_options, pools, why_it_ended

__all__ = ["LOCAL", "Local"]

PACKAGE_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Local:
    """A subprocess on this machine. `cores`: the processors it may run on (empty: any; Linux); `environment`: variables
    of the work, beside this process's own. Raises UsageError for a core or variable that cannot be."""

    launcher: Launcher = field(default=Native(sys.executable))
    cores: tuple[int, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_options(self.cores, self.environment)
        if self.cores and not hasattr(os, "sched_setaffinity"):
            raise UsageError(f"cores {self.cores}: this system cannot hold work to cores", hint="leave cores out")

    @property
    def name(self) -> str:
        return "local" if self.launcher.name == "native" else f"local, {self.launcher.name}"

    @property
    def fidelity(self) -> Fidelity:
        return self.launcher.fidelity

    def identity(self, libraries: tuple[str, ...]) -> dict[str, str]:
        """Processor, instruction sets and library versions: predictions of int8 files depend on all three."""
        machine = self.probe()
        return {"cpu": machine.cpu, "isa": " ".join(machine.isa), **library_versions(libraries)}

    def probe(self, packages: tuple[str, ...] = ()) -> Machine:
        """This machine; where a core is emulated, that is said in place of the processor's name."""
        machine = describe().model_copy(update={"libraries": library_versions(packages)} if packages else {})
        if self.fidelity == "measured":
            return machine
        return machine.model_copy(update={"cpu": f"{self.launcher.name}, emulated on {machine.cpu}"})

    def run(self, work: Work) -> Completed:
        """Run the work in a fresh process. Raises DeviceError where it fails (see `Transport.run`)."""
        try:
            with tempfile.TemporaryDirectory(prefix="edgekit-job-", ignore_cleanup_errors=True) as folder:
                return self._run_in(Path(folder), work)
        except OSError as error:
            raise DeviceError(f"{work.name} could not be started: {error}") from None

    def _run_in(self, folder: Path, work: Work) -> Completed:
        place = _Here(folder, self.launcher)
        spec, result = folder / "job.json", folder / "result.json"
        spec.write_text(json.dumps(work.wire(place)), encoding="utf-8")
        start = time.perf_counter()
        command = [*place.python(), place.worker(work.script), str(spec), str(result)]
        code, stderr = self._process(command, work, folder)
        seconds = time.perf_counter() - start
        if not result.exists():
            raise DeviceError(f"{work.name} failed: {why_it_ended(code, stderr)}")
        counts = folder / self.launcher.counts
        counted = self.launcher.instructions(counts.read_bytes()) if counts.is_file() else ()
        return Completed(result.read_bytes(), seconds, stderr, counted)

    def _process(self, command: list[str], work: Work, folder: Path) -> tuple[int, str]:
        """Exit code and end of stderr. The process leads a group of its own, which never outlives this call."""
        log = folder / "stderr.txt"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                cwd=folder,
                env=_environment(work, self.environment, clean=self.fidelity == "emulated"),
                start_new_session=True,
            )
            try:
                if self.cores:
                    os.sched_setaffinity(process.pid, self.cores)
                process.wait(timeout=work.timeout)
            except subprocess.TimeoutExpired:
                raise DeviceError(f"{work.name}: still running after {work.timeout:g} s, killed") from None
            finally:
                _end(process)
        return process.returncode, log.read_text(encoding="utf-8", errors="replace")[-TAIL:]


LOCAL = Local()


@dataclass(frozen=True)
class _Here:
    """This machine as a place: things are where they are; inputs go into the work's folder."""

    home: Path
    launcher: Launcher

    def python(self) -> list[str]:
        return self.launcher.command(self)

    def worker(self, name: str) -> str:
        """Where instructions are counted, of a copy: whether a module was compiled before changes where memory lies."""
        if self.launcher.fidelity == "measured":
            return str(WORKERS / name)
        copy = self.home / "workers"
        shutil.copytree(WORKERS, copy, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        return str(copy / name)

    def artifact(self, artifact: Artifact) -> str:
        return str(artifact.path.resolve())

    def inputs(self, inputs: Inputs) -> str:
        wire = inputs.wire()
        path = self.home / f"inputs-{digest_json(wire)[:SHORT]}.json"
        path.write_text(json.dumps(wire), encoding="utf-8")
        return str(path)

    def bundle(self, folder: Path, digest: str) -> str:
        return str(folder.resolve())

    def folder(self) -> str:
        return str(self.home)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the whole group (a worker's own children too) and what left it, as a browser does; collect the process."""
    import psutil

    left = []
    with suppress(psutil.NoSuchProcess):
        left = psutil.Process(process.pid).children(recursive=True)
    with suppress(ProcessLookupError, PermissionError):  # PermissionError: macOS says so of a group of zombies
        os.killpg(process.pid, signal.SIGKILL)
    for child in left:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()
    psutil.wait_procs(left, timeout=5)


def _environment(work: Work, own: Mapping[str, str], *, clean: bool) -> dict[str, str]:
    """The caller's environment, with every thread pool held to the work's threads; and the target's own variables.

    `clean`: without the caller's, whose size decides where memory lies and so, by a thousandth, what is counted.
    """
    inherited = {name: value for name, value in os.environ.items() if name == "PATH" or not clean}
    inherited.pop("OMP_WAIT_POLICY", None)  # training here waits passively; a device's runtime would not
    env = {**inherited, **pools(work.threads), **own}
    if work.package:
        env["PYTHONPATH"] = os.pathsep.join(p for p in (str(PACKAGE_ROOT), env.get("PYTHONPATH", "")) if p)
    return env
