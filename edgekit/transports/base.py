"""What every transport can do: say where it leads, and run one job there."""

from __future__ import annotations

from typing import Protocol

from edgekit.jobs import Completed, Job

__all__ = ["Transport"]


class Transport(Protocol):
    """A way to a machine. Implementations kill what they started when a job takes too long or is interrupted."""

    @property
    def name(self) -> str:
        """Short name for reports."""

    def identity(self, libraries: tuple[str, ...]) -> dict[str, str]:
        """What decides the numbers there: processor, instruction sets, versions of `libraries`."""

    def run(self, job: Job) -> Completed:
        """Run the job to its end.

        Raises DeviceError for a timeout, a process that died, or one that left no result.
        """
