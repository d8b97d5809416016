"""Where a file's time goes, by its runtime's own profiler, in a fresh process (`workers/profile_worker.py`)."""

from __future__ import annotations

from dataclasses import replace

from pydantic import ConfigDict, ValidationError

from edgekit.artifact import Artifact, Frozen
from edgekit.errors import DeviceError
from edgekit.jobs import Call, Inputs, Job
from edgekit.runtimes import RUNTIMES

__all__ = ["PROFILED", "NodeTime", "Profile", "profile_job", "read_profile"]

PROFILED = ("onnx", "openvino")
RUNS = 30


class NodeTime(Frozen):
    """A node as the runtime executes it: its name there, its operator, and median milliseconds of an inference."""

    name: str
    operator: str
    ms: float


class Profile(Frozen):
    """Nodes in the order of execution; `wall_ms`: of the whole inference, while it was watched."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    nodes: tuple[NodeTime, ...]
    wall_ms: float


def profile_job(artifact: Artifact, inputs: Inputs, threads: int, batch: int) -> Job:
    """The process to run, on the first `batch` rows. Raises DeviceError where the artifact lacks a file."""
    call = Call("latency", threads, batch=batch, warmup=8, iterations=RUNS, timeout=300.0)
    return replace(RUNTIMES[artifact.format].job(artifact, inputs, call), worker="profile_worker.py")


def read_profile(artifact: Artifact, raw: bytes) -> Profile:
    """RESULT.json. Raises DeviceError for an error in it, or a broken one."""
    RUNTIMES[artifact.format].parse(raw)
    try:
        return Profile.model_validate_json(raw)
    except ValidationError as error:
        raise DeviceError(f"profile_worker: broken result ({error.errors()[0]['loc']})") from None
