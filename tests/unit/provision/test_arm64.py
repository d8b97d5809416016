"""What arm64 targets lack is told with the command that adds it; what comes from outside is checked before use."""

from __future__ import annotations

import shutil
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from edgekit.errors import DeviceError
from edgekit.progress import Silent
from edgekit.provision.arm64 import find, missing, ready, setup
from edgekit.provision.cores import CORES, write_profiles
from edgekit.provision.debian import SOURCES, gather
from edgekit.provision.start import emulated
from edgekit.provision.wheels import install_wheels, unpack

TOOLS = ("qemu-aarch64", "apt-get", "dpkg", "cc")
prepared = pytest.mark.skipif(
    not all(map(shutil.which, TOOLS)), reason=f"needs {', '.join(TOOLS)} (apt-get install qemu-user gcc libc6-dev)"
)


def test_a_bare_machine_lacks_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    problems = {problem.where: problem.hint for problem in missing(tmp_path)}
    assert list(problems) == [*TOOLS, "arm64 bundle"]
    assert problems["qemu-aarch64"] == "apt-get install qemu-user"
    assert problems["arm64 bundle"] == "edgekit targets setup arm64"
    assert not ready(tmp_path)
    with pytest.raises(DeviceError, match="not prepared\nhint: edgekit targets setup arm64"):
        find(tmp_path)
    with pytest.raises(DeviceError, match=r"(?s)cannot be prepared.*qemu-user.*apt-get.*gcc"):
        setup(tmp_path, Silent())


@prepared
def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DeviceError, match=r"file.*cannot be written: .*\nhint: EDGEKIT_CACHE"):
        setup(tmp_path / "file", Silent())


@prepared
def test_sources_without_arm64_are_told_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sources.list").touch()
    monkeypatch.setenv(SOURCES, str(tmp_path / "sources.list"))
    with pytest.raises(DeviceError, match=rf"(?s)cannot download Python for arm64: E: .*python3.*hint: .*{SOURCES}"):
        setup(tmp_path / "cache", Silent())
    assert [path.name for path in (tmp_path / "cache" / "arm64").iterdir()] == [".lock"]
    assert not ready(tmp_path / "cache")


def test_a_wheel_that_cannot_be_had_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DeviceError, match=r"wheels of numpy==2\.4\.6 for Python 3\.11 cannot be had\nhint: ERROR"):
        install_wheels({"numpy": "2.4.6"}, "3.11", tmp_path, tmp_path / "site")


@pytest.mark.parametrize("name", ["../evil.py", "/evil.py", "numpy/../../evil.py", "..\\evil.py"])
def test_a_wheel_cannot_write_elsewhere(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "bad.whl", "w") as archive:
        archive.writestr("fine.py", "")
        archive.writestr(name, "")
    with pytest.raises(DeviceError, match=r"bad\.whl: it holds .*evil"):
        unpack(tmp_path / "bad.whl", tmp_path / "in" / "site")
    assert not list(tmp_path.rglob("*evil.py"))


def test_a_wheel_is_unpacked_without_its_tests_and_a_broken_one_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "good.whl", "w") as archive:
        for name in ("good/__init__.py", "good/tests/test_it.py"):
            archive.writestr(name, "x = 1")
    unpack(tmp_path / "good.whl", tmp_path / "site")
    assert [path.name for path in tmp_path.rglob("*.py")] == ["__init__.py"]
    (tmp_path / "broken.whl").write_bytes((tmp_path / "good.whl").read_bytes()[:50])
    with pytest.raises(DeviceError, match=r"broken\.whl"):
        unpack(tmp_path / "broken.whl", tmp_path / "site")


def test_the_bundle_is_plain_files_by_the_names_that_programs_ask_for(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("usr/bin/python3.12", "usr/lib/python3.12/json/__init__.py", "lib/aarch64-linux-gnu/libz.so.1.2"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "usr/bin/python3").symlink_to("python3.12")
    (root / "lib/aarch64-linux-gnu/libz.so.1").symlink_to("libz.so.1.2")
    (root / "usr/lib/python3.12/sitecustomize.py").symlink_to("/etc/python3.12/sitecustomize.py")
    assert gather(root, tmp_path / "out") == "3.12"
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == {"bin/python3.12", "lib/python3.12/json/__init__.py", "lib/libz.so.1"}
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
    with pytest.raises(DeviceError, match="no Python"):
        gather(tmp_path / "out", tmp_path / "again")


def test_every_core_has_a_profile_of_its_own(tmp_path: Path) -> None:
    write_profiles(tmp_path)
    texts = {core: (tmp_path / core / "proc" / "cpuinfo").read_text(encoding="utf-8") for core in CORES}
    assert len(set(texts.values())) == len(CORES)
    assert [core for core, text in texts.items() if "asimddp" in text] == ["cortex-a76"]  # others have no dotprod


def test_a_core_runs_with_its_own_profile_and_paths_with_commas() -> None:
    command = emulated("cortex-a72", "/cores", "/a,b", "3.12", ("/a,b/count.so", "/x,y/out"))
    start = command.index("qemu-aarch64")
    assert command[start : start + 5] == ["qemu-aarch64", "-cpu", "cortex-a72", "-L", "/cores/cortex-a72"]
    assert "PYTHONHOME=/a,b" in command[:start]
    assert command[command.index("-plugin") + 1] == "file=/a,,b/count.so,out=/x,,y/out"
    assert command[-4:] == ["/a,b/lib/ld-linux-aarch64.so.1", "--library-path", "/a,b/lib", "/a,b/bin/python3.12"]
    assert "-plugin" not in emulated("cortex-a72", "/cores", "/bundle", "3.12")


def test_looking_for_pip_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Setuptools warns, and drops `distutils`, when pip is looked for as a module after something imported that."""
    monkeypatch.setitem(sys.modules, "distutils", ModuleType("distutils"))
    assert missing(tmp_path)
    assert "distutils" in sys.modules
