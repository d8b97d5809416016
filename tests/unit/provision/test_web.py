"""What a browser target lacks is told, with the command that installs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edgekit.errors import DeviceError
from edgekit.progress import Silent
from edgekit.provision.web import NPM, find, find_chromium, missing, ready, setup


def program(folder: Path, name: str, says: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho {says}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_a_bare_machine_lacks_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CHROMIUM", raising=False)
    problems = {problem.where: problem.hint for problem in missing(tmp_path)}
    assert list(problems) == ["node", "onnxruntime-web", "chromium"]
    assert problems["onnxruntime-web"] == "edgekit targets setup web"
    assert "apt-get install" in problems["node"]
    assert "chromium-headless-shell" in problems["chromium"]
    assert not ready(tmp_path)
    with pytest.raises(DeviceError, match=r"onnxruntime-web cannot be run\n.*node.*\n.*not installed"):
        find(tmp_path)
    with pytest.raises(DeviceError, match="npm is missing"):
        setup(tmp_path, Silent())


def test_an_old_node_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "node", "v18.20.4")
    program(tmp_path, "npm", "9")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "is v18.20.4" in missing(tmp_path)[0].what
    with pytest.raises(DeviceError, match=r"v18\.20\.4"):
        setup(tmp_path, Silent())


def test_a_failed_install_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "node", "v22.1.0")
    program(tmp_path, "npm", "'npm error network' >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="npm ci failed: npm error network"):
        setup(tmp_path / "cache", Silent())
    assert [path.name for path in (tmp_path / "cache" / "web").iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "node", "v22.1.0")
    program(tmp_path, "npm", "9")
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DeviceError, match=r"web cannot be written: .*\nhint: EDGEKIT_CACHE"):
        setup(tmp_path / "file", Silent())


def test_chromium_is_the_one_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = program(tmp_path, "mine", "Chromium 1"), program(tmp_path, "chromium", "Chromium 2")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CHROMIUM", raising=False)
    assert find_chromium() == other
    monkeypatch.setenv("CHROMIUM", str(mine))
    assert find_chromium() == mine
    assert find_chromium(other) == other
    monkeypatch.setenv("CHROMIUM", str(tmp_path / "absent"))
    with pytest.raises(DeviceError, match=r"no program at .*absent"):
        find_chromium()


def test_the_lock_pins_by_content_and_names_no_host() -> None:
    lock = json.loads((NPM / "package-lock.json").read_text(encoding="utf-8"))
    wanted = json.loads((NPM / "package.json").read_text(encoding="utf-8"))["dependencies"]
    for name, entry in lock["packages"].items():
        assert name == "" or entry["integrity"].startswith("sha512-")
        assert "resolved" not in entry
    for name, version in wanted.items():
        assert lock["packages"][f"node_modules/{name}"]["version"] == version


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_a_node_that_is_new_enough_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(str(shutil.which("node"))).parent))
    assert "node" not in {problem.where for problem in missing(tmp_path)}
