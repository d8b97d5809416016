"""A device behind a shell, as a place for work."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from edgekit.artifact import Artifact
from edgekit.jobs import Inputs
from edgekit.launchers import Launcher
from edgekit.transports.device import Device

__all__ = ["There"]


class There:
    """The device as a place. What belongs to the work alone is gathered in `files` and pushed in one go."""

    def __init__(self, device: Device, launcher: Launcher) -> None:
        self.device = device
        self.launcher = launcher
        self.home = device.new_job()
        self.files: dict[str, bytes] = {}
        self.brought: dict[str, str] = {}  # by digest: nothing is asked for twice

    def python(self) -> list[str]:
        program, *arguments = self.launcher.command(self)
        return [f"{self.device.home}/{program[2:]}" if program.startswith("~/") else program, *arguments]

    def worker(self, name: str) -> str:
        return name if name.startswith("/") else f"{self.device.workers}/{name}"

    def artifact(self, artifact: Artifact) -> str:
        content = artifact.content
        if content not in self.brought:
            self.brought[content] = self.device.artifact(artifact)
        return self.brought[content]

    def inputs(self, inputs: Inputs) -> str:
        content = json.dumps(inputs.wire()).encode()
        name = f"inputs-{hashlib.sha256(content).hexdigest()}.json"
        self.files[name] = content
        return f"{self.home}/{name}"

    def bundle(self, folder: Path, digest: str) -> str:
        if digest not in self.brought:
            self.brought[digest] = self.device.bundle(folder, digest)
        return self.brought[digest]

    def folder(self) -> str:
        return self.home
