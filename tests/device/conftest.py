"""Real devices on this machine: an OpenSSH server on the loopback interface, and adbd in a network of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_onnx

from edgekit.artifact import Artifact
from edgekit.jobs import Call, Inputs, Job
from edgekit.transports.adb import Adb
from edgekit.transports.remote import Remote
from tests.device.ssh_host import SshHost, wait_for

REQUIRED = "EDGEKIT_REQUIRE"  # markers ("ssh adb"): of each, one test at least must have run, or the session fails
ran: defaultdict[str, set[bool]] = defaultdict(set)  # of each, whether its tests were skipped


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped or report.when == "call":
        for marker in set(os.environ.get(REQUIRED, "").split()) & set(report.keywords):
            ran[marker].add(bool(report.skipped))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if missing := [marker for marker, skipped in ran.items() if skipped == {True}]:
        told = session.config.pluginmanager.get_plugin("terminalreporter")
        told.write_line(f"\n{REQUIRED}: every test of {', '.join(sorted(missing))} was skipped", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


class AdbHost:
    """adbd and adb's server in a private network: adbd listens on every interface and asks nobody who they are."""

    serial = "127.0.0.1:5655"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = f"localfilesystem:{folder}/adb"

    def start(self) -> None:
        lines = (
            "ip link set lo up && cd {0} || exit; ADBD_PORT=5655 {1} >adbd.log 2>&1 & echo $! >pid; "
            "exec adb -L {2} server nodaemon >server.log 2>&1"
        )
        command = lines.format(self.folder, shutil.which("adbd") or "/usr/sbin/adbd", self.socket)
        unshare = ["unshare", "--net", *(["--map-root-user"] if os.geteuid() else [])]
        (self.folder / "adb").unlink(missing_ok=True)
        environment = {**os.environ, "HOME": str(self.folder)}
        self.process = subprocess.Popen([*unshare, "sh", "-c", command], env=environment, start_new_session=True)
        wait_for((self.folder / "adb").exists, "adb's server")

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def cut(self) -> None:
        """Kill adbd, as if the cable were pulled."""
        os.kill(int((self.folder / "pid").read_text()), signal.SIGKILL)

    def connect(self, **options: object) -> Adb:
        return Adb(self.serial, **{"python": sys.executable} | options)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHost]:
    if not (shutil.which("sshd") or Path("/usr/sbin/sshd").exists()) or not shutil.which("ssh-keygen"):
        pytest.skip("no sshd here (apt install openssh-server)")
    host = SshHost(tmp_path_factory.mktemp("sshd"))
    host.start()
    yield host
    host.stop()


@pytest.fixture
def adbd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AdbHost]:
    for program, package in {"adb": "adb", "adbd": "adbd", "ip": "iproute2", "unshare": "util-linux"}.items():
        if not (shutil.which(program) or Path("/usr/sbin", program).exists()):
            pytest.skip(f"no {program} here (apt install {package})")
    mapped = ["--map-root-user"] if os.geteuid() else []
    if subprocess.run(["unshare", "--net", *mapped, "true"], capture_output=True).returncode:
        pytest.skip("adbd needs a private network, which this machine does not allow")
    folder = tmp_path / "adbd"
    folder.mkdir()
    host = AdbHost(folder)
    monkeypatch.setenv("ADB_SERVER_SOCKET", host.socket)
    host.start()
    yield host
    host.stop()


@pytest.fixture(params=[pytest.param("sshd", marks=pytest.mark.ssh), pytest.param("adbd", marks=pytest.mark.adb)])
def host(request: pytest.FixtureRequest) -> SshHost | AdbHost:
    """Each kind of device in turn."""
    found: SshHost | AdbHost = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder below which edgekit keeps its things on the device; the tests look into it."""
    return tmp_path / "it's a root"  # quoted everywhere, or nothing works


@pytest.fixture
def device(host: SshHost | AdbHost, root: Path) -> Remote:
    return host.connect(root=str(root))


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return tiny_onnx.make(tmp_path_factory.mktemp("made") / "tiny")


@pytest.fixture
def job(artifact: Artifact, tmp_path: Path) -> Callable[..., Job]:
    """`job(code, timeout=60.0)`: a worker of that code, which finds `spec` and `result` (paths)."""

    def make(code: str, *, timeout: float = 60.0, package: bool = False, **call: object) -> Job:
        worker = tmp_path / f"worker{len(list(tmp_path.iterdir()))}.py"
        worker.write_text("import json, os, signal, sys, time\nspec, result = sys.argv[1:]\n" + code, encoding="utf-8")
        inputs = Inputs(("on", "ö"), None, 8)
        known = Call("predict", 3, timeout=timeout)
        return Job(artifact, str(worker), "model.onnx", "tokenizer.json", inputs, known, package=package)

    return make
