"""What a machine is, asked on the machine itself: `probe_worker.py` reads, `machine_of` understands."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ConfigDict, JsonValue, ValidationError

from edgekit.artifact import Frozen
from edgekit.errors import DeviceError
from edgekit.jobs import Place
from edgekit.machine import Machine, physical_in, processor

__all__ = ["Probe", "machine_of"]


@dataclass(frozen=True)
class Probe:
    """Work that reads the machine, and the versions of `packages` there."""

    packages: tuple[str, ...] = ()
    timeout: float = 120.0

    @property
    def name(self) -> str:
        return "probing"

    @property
    def threads(self) -> int:
        return 1

    @property
    def package(self) -> bool:
        return False

    @property
    def script(self) -> str:
        return "probe_worker.py"

    def wire(self, place: Place) -> dict[str, JsonValue]:
        """JOB.json."""
        return {"packages": list(self.packages)}


class _Probed(Frozen):
    model_config = ConfigDict(frozen=True, extra="ignore")

    arch: str
    system: str
    python: str
    cpuinfo: str
    logical_cores: int
    allowed_cores: int
    memory_bytes: int
    governor: str
    temperature_c: float | None
    load: tuple[float, float, float] | None
    packages: dict[str, str]


def machine_of(raw: bytes, device: str) -> Machine:
    """The machine that RESULT.json of a `Probe` describes. Raises DeviceError where it does not."""
    try:
        found = _Probed.model_validate_json(raw)
    except ValidationError as error:
        raise DeviceError(f"{device}: the probe brought no answer ({error.errors()[0]['msg']})") from None
    cpu, isa = processor(found.cpuinfo)
    return Machine(
        cpu=cpu or found.arch,
        arch=found.arch,
        cores=max(1, min(physical_in(found.cpuinfo) or found.logical_cores, found.allowed_cores)),
        logical_cores=found.logical_cores,
        memory_bytes=found.memory_bytes,
        isa=isa,
        system=found.system,
        python=found.python,
        libraries=found.packages,
        load=found.load,
        governor=found.governor,
        temperature_c=found.temperature_c,
    )
