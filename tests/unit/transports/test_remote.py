"""The remote side without a network: the shell is one of this machine's, so every kind that is installed is tried."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar

import psutil
import pytest
import tiny_onnx

from edgekit.artifact import Artifact
from edgekit.errors import DeviceError, UsageError
from edgekit.jobs import WORKERS
from edgekit.transports import device
from edgekit.transports.device import Device
from edgekit.transports.remote import Remote

SHELLS = {"dash": ["dash"], "bash": ["bash"], "mksh": ["mksh"], "busybox": ["busybox", "sh"]}  # Android's is mksh


@dataclass(frozen=True)
class Here(Remote):
    """This machine, behind a shell."""

    ROOT: ClassVar[str] = "~/absent"

    argv: tuple[str, ...] = ("sh",)

    @property
    def device_name(self) -> str:
        return "here"

    def open_shell(self) -> HereShell:
        return HereShell(self.argv)


class HereShell:
    name = "here"
    install = "apt install dash"

    def __init__(self, argv: tuple[str, ...]) -> None:
        self.argv = argv

    def command(self, line: str) -> list[str]:
        return [*self.argv, "-c", line]

    def failure(self, stderr: str) -> DeviceError:
        return DeviceError(f"broke: {stderr}")


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(root=str(tmp_path / "root"), python=sys.executable)


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return tiny_onnx.make(tmp_path / "tiny")


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> list[str]:
    argv: list[str] = SHELLS[request.param]
    if shutil.which(argv[0]) is None:
        pytest.skip(f"no {argv[0]} here (apt install {argv[0]})")
    return argv


@dataclass
class Supervised:
    """`supervise.sh` in a shell, with a job's folder of its own; its standard input stays open."""

    process: subprocess.Popen[bytes]
    job: Path

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.read().decode()

    def hang_up(self) -> int:
        """Close its standard input, and wait for its exit code."""
        with self.process as process:
            assert process.stdin is not None
            process.stdin.close()
            return process.wait()


def supervise(shell: list[str], folder: Path, *command: str, wait: int = 5, limit: int = 60) -> Supervised:
    job = folder / f"job {len(list(folder.iterdir()))}"
    job.mkdir()
    argv = [
        *shell,
        str(WORKERS / "supervise.sh"),
        str(job),
        str(folder / "lock"),
        str(wait),
        str(limit),
        "me",
        *command,
    ]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return Supervised(process, job)


def children(note: Path) -> list[psutil.Process]:
    """The processes whose numbers the work wrote down, once it did."""
    for _ in range(200):
        if note.exists() and note.read_text().endswith("\n"):
            return [psutil.Process(int(pid)) for pid in note.read_text().split()]
        time.sleep(0.05)
    raise AssertionError("the work did not start")


def ended(process: psutil.Process) -> bool:
    for _ in range(200):
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("work", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("kill -ILL $$", 132)]
)
def test_it_says_how_the_work_ended(shell: list[str], tmp_path: Path, work: str, code: int) -> None:
    made = supervise(shell, tmp_path, "sh", "-c", f"echo noise; {work}")
    word, found, begin, end = made.answer().split()
    assert (word, int(found), made.hang_up()) == ("done", code, 0)
    assert 0 < float(begin) <= float(end)
    assert (made.job / "stderr.txt").read_text() == "noise\n"


def test_it_kills_what_takes_too_long_with_its_children(shell: list[str], tmp_path: Path) -> None:
    note = tmp_path / "pids"
    made = supervise(shell, tmp_path, "sh", "-c", f"sleep 300 & echo $$ $! >{note}; wait", limit=10)
    started = children(note)
    assert made.answer().split()[:2] in (["done", "124"], ["done", "143"])
    assert made.hang_up() == 0
    assert all(map(ended, started))


def test_it_kills_the_work_when_nobody_is_there_any_more(shell: list[str], tmp_path: Path) -> None:
    note = tmp_path / "pids"
    code = f"trap '' TERM; sleep 300 & echo $$ $! >{note}; wait; sleep 300"
    made = supervise(shell, tmp_path, "sh", "-c", code)
    started = children(note)
    assert made.hang_up() != 0
    assert all(map(ended, started))
    assert not made.job.exists()


def test_who_waits_for_his_turn_gives_up_when_nobody_is_there(shell: list[str], tmp_path: Path) -> None:
    note, never = tmp_path / "pids", tmp_path / "never"
    first = supervise(shell, tmp_path, "sh", "-c", f"echo $$ >{note}; sleep 300")
    started = children(note)
    second = supervise(shell, tmp_path, "touch", str(never), wait=300)
    assert second.hang_up() != 0
    assert not second.job.exists()
    third = supervise(shell, tmp_path, "touch", str(never), wait=1)
    assert third.answer().startswith("busy me since ")
    assert all(process.is_running() for process in started)
    for made in (first, third):
        made.hang_up()
    assert not never.exists()


def test_a_whole_run_in_every_shell(shell: list[str], tmp_path: Path) -> None:
    machine = Here(root=str(tmp_path / "root"), python=sys.executable, argv=tuple(shell)).probe(("numpy",))
    assert machine.python == sys.version.split()[0]
    assert list((tmp_path / "root" / "jobs").iterdir()) == []


def test_a_push_that_was_cut_off_leaves_nothing(here: Here, artifact: Artifact) -> None:
    (artifact.path / "tokenizer.json").unlink()  # the last file but the manifest: all before it is sent
    with pytest.raises(FileNotFoundError):
        here.device.artifact(artifact)
    assert list(Path(here.device.root, "artifacts").iterdir()) == []


def test_a_stream_without_its_end_is_not_taken(here: Here, artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """tar takes a stream that ends between two files for a whole one."""
    whole = device._pack

    def first_file(out: IO[bytes], files: device.Files, texts: dict[str, bytes]) -> None:
        stream = io.BytesIO()
        whole(stream, files, texts)
        blocks = -(-files[0][1].stat().st_size // 512)
        out.write(stream.getvalue()[: 512 * (1 + blocks)])

    monkeypatch.setattr(device, "_pack", first_file)
    with pytest.raises(DeviceError, match="the transfer broke off"):
        here.device.artifact(artifact)
    assert list(Path(here.device.root, "artifacts").iterdir()) == []


@pytest.mark.parametrize("name", ["../../evil", "/evil"])
def test_a_name_that_leads_out_is_refused(here: Here, artifact: Artifact, name: str) -> None:
    entry = next(iter(artifact.manifest.files.values()))
    manifest = artifact.manifest.model_copy(update={"files": {name: entry}})
    with pytest.raises(DeviceError, match="outside of its folder"):
        here.device.artifact(Artifact(artifact.path, manifest))
    assert here.sent == {}


def test_other_bytes_under_the_same_key_are_pushed(here: Here, artifact: Artifact, tmp_path: Path) -> None:
    retrained = tiny_onnx.make(tmp_path / "retrained", wrong=True, manifest={"key": artifact.key})
    first, second = (Path(here.device.artifact(made)) for made in (artifact, retrained))
    assert (first / "model.onnx").read_bytes() == artifact.model_file.read_bytes()
    assert (second / "model.onnx").read_bytes() == retrained.model_file.read_bytes()


def test_files_that_are_gone_here_are_told(here: Here, artifact: Artifact) -> None:
    @dataclass(frozen=True)
    class Work:
        name: str = "work"
        threads: int = 1
        timeout: float = 10.0
        package: bool = False
        script: str = "probe_worker.py"

        def wire(self, place: object) -> dict[str, object]:
            return {"model": place.artifact(artifact)}  # type: ignore[attr-defined]

    artifact.model_file.unlink()
    with pytest.raises(DeviceError, match="work could not be started"):
        here.run(Work())  # type: ignore[arg-type]


def test_a_tool_that_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("sh", "mkdir", "cat", "env", "find", "mv", "rm", "setsid", "tail", "tar", "timeout"):
        found = shutil.which(tool)
        assert found is not None
        (tools / tool).symlink_to(found)
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(DeviceError, match="here: lacks flock, taskset"):
        Device(HereShell(("sh",)), str(tmp_path / "root"))


def test_a_root_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DeviceError, match="cannot keep files in"):
        Device(HereShell(("sh",)), str(tmp_path / "file" / "root"))


def test_a_root_and_a_python_below_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my python").symlink_to(sys.executable)
    here = Here(root="~/a b/c", python="~/my python")
    assert here.probe().arch == os.uname().machine
    assert here.device.root == f"{tmp_path}/a b/c"


def test_a_holder_without_a_name_has_a_number(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user may be in no list of users."""
    for name in ("USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    here.probe()
    assert Path(here.device.root, "lock.holder").read_text().startswith(f"{os.getuid()}@")


def test_no_answer_in_time_is_told(here: Here) -> None:
    with pytest.raises(DeviceError, match="no answer within 1 s"):
        here.device.ask("sleep 60", timeout=1.0)


def test_a_line_that_is_cut_off_is_no_answer(here: Here) -> None:
    with pytest.raises(DeviceError, match="broke"):
        here.device.ask("kill -KILL $$; sleep 5")


@pytest.mark.parametrize("options", [{"root": "relative"}, {"cores": (-1,)}, {"environment": {"-i": ""}}])
def test_what_cannot_be_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Here(**options)  # type: ignore[arg-type]


def test_workers_are_pushed_once_and_whole(here: Here) -> None:
    folder = Path(here.device.workers)
    mine = {path.name for path in WORKERS.iterdir() if path.name != "__pycache__"}
    assert {path.name for path in folder.iterdir()} == mine | {".complete"}
    again = Here(root=here.root, python=sys.executable)
    assert again.device.workers == str(folder)
    assert again.sent == {}
    job = folder.parent / "job.json"
    job.write_text(json.dumps({"packages": []}))
    subprocess.run([sys.executable, folder / "probe_worker.py", job, folder.parent / "result.json"], check=True)
    assert json.loads((folder.parent / "result.json").read_text())["arch"] == os.uname().machine
