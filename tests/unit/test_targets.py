"""Targets by name: those that are built in, a user's file, and what may be wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgekit.artifact import library_versions
from edgekit.cli.main import cli
from edgekit.errors import RecipeError, UsageError
from edgekit.provision import arm64
from edgekit.provision.cache import cache_root
from edgekit.runtimes import CUDA, RUNTIMES, WEB
from edgekit.targets import BUILT_IN, AdbEntry, find_target, load_targets, missing
from edgekit.transports import LOCAL, Local
from edgekit.transports.adb import Adb
from edgekit.transports.browser import Browser
from edgekit.transports.ssh import Ssh

GOOD = """
targets:
  pi: {transport: ssh, host: pi.local, user: pi, python: ~/venv/bin/python, cores: [2, 3], threads: 2, about: a board}
  phone: {transport: adb, serial: R58M12}
  old: {transport: local, launcher: cortex-a53, environment: {A: b}}
  far: {transport: ssh, host: big, launcher: cortex-a72}
  gpu: {transport: ssh, host: gpu, provider: cuda, key: ~/.ssh/id}
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEKIT_TARGETS", raising=False)


def test_this_machine_is_the_built_in_one() -> None:
    target = find_target("cpu")
    assert (target.transport, target.runtimes, target.threads) == (LOCAL, RUNTIMES, 0)
    assert find_target("cuda").runtimes == CUDA
    assert find_target("browser").runtimes == WEB
    assert isinstance(find_target("browser").transport, Browser)
    assert find_target("cortex-a76").transport.fidelity == "emulated"


def test_a_file_adds_to_them(tmp_path: Path) -> None:
    (tmp_path / "targets.yaml").write_text(GOOD)  # found without being named
    assert set(load_targets()) == {*BUILT_IN, "pi", "phone", "old", "far", "gpu"}
    pi, phone, gpu = find_target("pi"), find_target("phone"), find_target("gpu")
    assert isinstance(pi.transport, Ssh)
    assert (pi.transport.host, pi.transport.user, pi.transport.cores, pi.threads) == ("pi.local", "pi", (2, 3), 2)
    assert isinstance(phone.transport, Adb)
    assert phone.transport.launcher is not None  # a phone has no Python: it is brought along
    assert phone.setup == "arm64"
    old, far = find_target("old"), find_target("far")
    assert isinstance(old.transport, Local)
    assert old.transport.environment == {"A": "b"}
    assert (far.transport.fidelity, far.transport.name, far.setup) == ("emulated", "ssh big, cortex-a72", "arm64")
    assert isinstance(gpu.transport, Ssh)
    assert gpu.transport.port == 0  # for ssh to say
    assert gpu.transport.key == Path("~/.ssh/id").expanduser()
    assert gpu.runtimes == CUDA


def test_the_file_may_be_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("targets:\n  here: {transport: local}\n")
    assert "here" in load_targets(tmp_path / "mine.yaml")
    monkeypatch.setenv("EDGEKIT_TARGETS", str(tmp_path / "mine.yaml"))
    assert "here" in load_targets()


def test_all_problems_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "targets.yaml").write_text(
        "targets:\n  a: {transport: shh, host: x}\n  b: {transport: ssh}\n  c: {transport: adb, serail: R5}\n"
        "  d: {transport: local, launcher: cortex-a55}\n  e: 7\n"
    )
    with pytest.raises(RecipeError) as caught:
        load_targets()
    told = str(caught.value)
    assert "6 problems" in told  # of the last two, a core is neither native nor a known one
    for words in (
        "targets.a.transport: 'shh' is no transport (did you mean 'ssh'?)",
        "targets.b.host: is missing",
        "targets.c.serail: unknown key (did you mean 'serial'?)",
        "targets.d.launcher",
        "targets.e.transport",
    ):
        assert words in told


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{transport: local, cores: [-1]}", r"targets\.x\.cores\[0\]: input should be greater than or equal to 0"),
        ("{transport: ssh, host: -x}", r"targets\.x: host '-x' would be read as an option"),
        ("{transport: ssh, host: x, root: here}", r"targets\.x: root 'here' is not a folder"),
        ("{transport: local, environment: {a-b: c}}", r"targets\.x: environment: 'a-b' is not"),
        ("{transport: local, provider: cuda, launcher: cortex-a53}", r"targets\.x: .*cortex-a53 .*no CUDA"),
        ("{transport: adb, provider: cuda}", r"targets\.x: .*bundle .*no CUDA"),
    ],
)
def test_an_entry_that_cannot_work_is_told(tmp_path: Path, entry: str, told: str) -> None:
    (tmp_path / "targets.yaml").write_text(f"targets:\n  x: {entry}\n")
    with pytest.raises(RecipeError, match=told):
        load_targets()


@pytest.mark.parametrize(
    "text", ["[]", "targets: []", "targts: {}", "targets: {}\nmore: 1", "a: [", "? [a]\n: 1", "a: 1\na: 2"]
)
def test_a_file_that_is_something_else(tmp_path: Path, text: str) -> None:
    (tmp_path / "targets.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"targets\.yaml"):
        load_targets()


def test_an_unknown_target_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'cortex-a53'"):
        find_target("cortex-a5")


def test_what_is_missing_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "targets.yaml").write_text(GOOD)
    entries = load_targets()
    assert missing(entries["cpu"]) == ()
    assert [p.hint for p in missing(entries["pi"])] == ["apt-get install openssh-client"]
    for name in ("phone", "cortex-a76", "browser", "cuda"):
        assert missing(entries[name])
        assert all(problem.hint for problem in missing(entries[name]))


def program(folder: Path, name: str, says: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\necho '{says}'\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("folders", "told"),
    [(("bundle",), ["instructions cannot be counted with this qemu (9.2.1)"]), (("bundle", "counter"), [])],
)
def test_a_qemu_that_cannot_count_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folders: tuple[str, ...], told: list[str]
) -> None:
    program(tmp_path, "qemu-aarch64", "qemu-aarch64 version 9.2.1 (Debian)")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    prepared = arm64._folder(cache_root()) / "digests.json"
    prepared.parent.mkdir(parents=True)
    prepared.write_text(json.dumps({"python": "3.11", "folders": dict.fromkeys(folders, "digest")}))
    assert [problem.what for problem in missing(BUILT_IN["cortex-a53"])] == told
    assert "counted" not in str(missing(AdbEntry(transport="adb")))  # a bundle is timed


def test_a_gpu_needs_its_runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if library_versions(("onnxruntime-gpu",))["onnxruntime-gpu"] != "absent":
        pytest.skip("onnxruntime-gpu is installed here")
    program(tmp_path, "nvidia-smi", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [problem.what for problem in missing(BUILT_IN["cuda"])] == ["onnxruntime-gpu is not installed"]


def test_the_command_lists_them(tmp_path: Path) -> None:
    (tmp_path / "targets.yaml").write_text(GOOD)
    done = CliRunner().invoke(cli, ["targets", "--json"])
    assert done.exit_code == 0, done.output
    for name in ("cpu", "cortex-a53", "pi", "phone"):
        assert f'"name": "{name}"' in done.output
    probed = CliRunner().invoke(cli, ["targets", "probe", "cpu", "--json"])
    assert '"cpu"' in probed.output
