"""What this machine can do, target by target."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.doctor import Check, examine
from edgekit.targets import BUILT_IN

PROVIDER = "CUDA provider (ONNX runtime on the GPU)"


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without programs and with an empty cache; the folder where it finds programs."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path


def checks() -> dict[str, Check]:
    return {check.name: check for check in examine()}


def test_every_target_of_this_machine_is_looked_at(bare: Path) -> None:
    found = checks()
    assert {name for name in found if name.startswith("target ")} == {f"target {name}" for name in BUILT_IN}
    assert (found["target cpu"].ok, found["target cpu"].found) == (True, "ready")
    assert not found["target cortex-a53"].ok
    assert "qemu-aarch64: not found" in found["target cortex-a53"].found
    assert "edgekit targets setup arm64" in found["target cortex-a53"].remedy


def test_the_cuda_provider_is_looked_for_where_there_is_a_driver(bare: Path) -> None:
    assert PROVIDER not in checks()
    (bare / "nvidia-smi").touch(mode=0o755)
    assert "CPUExecutionProvider" in checks()[PROVIDER].found
