"""A job on this machine: what it is given, how it may die, and that nothing is left of it."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest
import tiny_onnx

from edgekit.artifact import Artifact
from edgekit.errors import DeviceError, UsageError
from edgekit.jobs import WORKERS, Call, Inputs, Job
from edgekit.transports import LOCAL, Local


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return tiny_onnx.make(tmp_path_factory.mktemp("made") / "tiny")


def job(artifact: Artifact, folder: Path, code: str, *, timeout: float = 60.0, package: bool = False) -> Job:
    worker = folder / "worker.py"
    worker.write_text("import json, os, sys, time\njob, result = sys.argv[1:]\n" + code, encoding="utf-8")
    inputs = Inputs(("on", "ö"), None, 8)
    call = Call("predict", 3, timeout=timeout)
    return Job(artifact, str(worker), "model.onnx", "tokenizer.json", inputs, call, package=package)


def gone(pid: int) -> bool:
    """Whether the process ended (a zombie nobody here can collect counts)."""
    for _ in range(50):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_a_worker_gets_its_job_and_answers(artifact: Artifact, tmp_path: Path) -> None:
    code = (
        "spec = json.load(open(job)); spec['given'] = json.load(open(spec['inputs']))\n"
        "spec['env'] = os.environ['OMP_NUM_THREADS']; spec['cwd'] = os.getcwd()\n"
        "print('noise on stdout'); json.dump(spec, open(result, 'w'))"
    )
    completed = LOCAL.run(job(artifact, tmp_path, code))
    answer = json.loads(completed.raw)
    assert Path(answer["model"]).samefile(artifact.model_file)
    assert Path(answer["tokenizer"]).samefile(artifact.path / "tokenizer.json")
    assert answer["given"] == Inputs(("on", "ö"), None, 8).wire()
    assert (answer["threads"], answer["env"]) == (3, "3")
    assert not Path(answer["cwd"]).exists()
    assert completed.seconds > 0


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("raise ValueError('no such layer')", "no such layer"),
        ("sys.exit(7)", "exit code 7"),
        ("pass", "no result"),
        ("import signal; os.kill(os.getpid(), signal.SIGILL)", "instructions"),
        ("import signal; os.kill(os.getpid(), signal.SIGKILL)", "out of memory"),
    ],
)
def test_a_worker_that_dies_is_told(artifact: Artifact, tmp_path: Path, code: str, word: str) -> None:
    with pytest.raises(DeviceError, match="worker on tiny failed") as caught:
        LOCAL.run(job(artifact, tmp_path, code))
    assert word in str(caught.value)


SLEEPER = (
    "import subprocess; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "open({note!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}\\n'); time.sleep(60)"
)


def test_a_hung_job_is_killed_with_its_children(artifact: Artifact, tmp_path: Path) -> None:
    note = tmp_path / "pids"
    with pytest.raises(DeviceError, match="still running after 10 s"):
        LOCAL.run(job(artifact, tmp_path, SLEEPER.format(note=str(note)), timeout=10.0))
    assert all(gone(int(pid)) for pid in note.read_text().split())


def test_an_interrupt_leaves_nothing_running(artifact: Artifact, tmp_path: Path) -> None:
    note = tmp_path / "pids"

    def interrupt() -> None:
        while not (note.exists() and note.read_text().endswith("\n")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        LOCAL.run(job(artifact, tmp_path, SLEEPER.format(note=str(note))))
    assert all(gone(int(pid)) for pid in note.read_text().split())


def test_peak_memory_is_the_workers_own(artifact: Artifact, tmp_path: Path) -> None:
    """getrusage would answer with this process's peak: a child is born with it."""
    block = bytearray(os.urandom(1)) * (300 << 20)
    code = f"sys.path.append({str(WORKERS)!r})\nfrom harness import peak_rss\njson.dump(peak_rss(), open(result, 'w'))"
    peak = json.loads(LOCAL.run(job(artifact, tmp_path, code)).raw)
    del block
    assert 5 << 20 < peak < 200 << 20


def test_a_full_or_missing_temporary_folder_is_told(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = job(artifact, tmp_path, "pass")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(DeviceError, match="could not be started"):
        LOCAL.run(made)


def test_a_worker_gets_the_targets_variables(artifact: Artifact, tmp_path: Path) -> None:
    local = Local(environment={"ODD": "it's $HOME", "OMP_NUM_THREADS": "1"})
    code = "json.dump([os.environ[name] for name in ('ODD', 'OMP_NUM_THREADS')], open(result, 'w'))"
    assert json.loads(local.run(job(artifact, tmp_path, code)).raw) == ["it's $HOME", "1"]


@pytest.mark.parametrize("options", [{"cores": (-1,)}, {"environment": {"-i": ""}}])
def test_what_cannot_be_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Local(**options)  # type: ignore[arg-type]


def test_cores_where_the_system_has_no_such_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)  # as on macOS
    with pytest.raises(UsageError, match="cannot hold work to cores"):
        Local(cores=(0,))


def test_identity_names_what_decides_the_numbers() -> None:
    found = LOCAL.identity(("onnxruntime", "no-such-library"))
    assert found["cpu"]
    assert found["onnxruntime"][0].isdigit()
    assert found["no-such-library"] == "absent"
