"""What holds for every device behind a shell, tried on a real one: answers, pushes, turns, deaths, and nothing left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tiny_onnx

from edgekit.artifact import Artifact
from edgekit.bench import measure
from edgekit.data.table import Table
from edgekit.errors import DeviceError
from edgekit.evaluate import predict
from edgekit.jobs import Job
from edgekit.machine import describe
from edgekit.runtimes import Workload
from edgekit.transports.remote import Remote

from .conftest import wait_for

Make = Callable[..., Job]
TABLE = Table(tuple("on off please " * (1 + at % 3) for at in range(20)), name="test")
SLEEPER = (
    "import subprocess\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\n"
    "open({note!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}\\n'); time.sleep(300)"
)
ERROR = "json.dump({{'error': {{'kind': '{}', 'message': '{}'}}}}, open(result, 'w'))"


def gone(pid: int) -> bool:
    """Whether the process ended (a zombie that nobody here can collect counts)."""
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def pids(note: Path) -> list[int]:
    text = note.read_text() if note.exists() else ""
    return [int(pid) for pid in text.split()] if text.endswith("\n") else []


def left(root: Path) -> list[str]:
    """What lies on the device that should have gone."""
    return [path.name for path in (*root.glob("jobs/*"), *root.glob("*/*.part-*"))]


def test_predictions_equal_local_ones(device: Remote, artifact: Artifact, root: Path) -> None:
    here, there = predict(artifact, TABLE), predict(artifact, TABLE, transport=device)
    assert np.array_equal(here.logits, there.logits)
    assert here.version == there.version
    assert left(root) == []


def test_a_sitting_measures(device: Remote, artifact: Artifact, tmp_path: Path) -> None:
    files = {"base": artifact, "slow": tiny_onnx.make(tmp_path / "slow", extra=200)}
    workload = Workload(items=8, rounds=2, seconds=0.3, warmup=2, threads=1)
    bench = measure(files, "base", TABLE, workload, transport=device)
    speedup = bench.measurements["slow"].speedup
    assert speedup is not None
    assert speedup.value < 1
    assert bench.conditions.transport == device.name
    assert bench.measurements["base"].throughput[0].per_second > 0


def test_the_second_push_sends_nothing(device: Remote, host: Any, tmp_path: Path, root: Path) -> None:
    big = tiny_onnx.make(tmp_path / "big", extra=1)
    (big.path / "not-in-the-manifest").write_bytes(bytes(1000))
    folder = Path(device.device.artifact(big))
    assert device.sent["artifacts"] >= sum(entry.size for entry in big.manifest.files.values())
    assert {path.name for path in folder.iterdir()} >= {"model.onnx", "manifest.json"}
    assert not (folder / "not-in-the-manifest").exists()
    assert (folder / "model.onnx").read_bytes() == big.model_file.read_bytes()
    before = device.sent["artifacts"]
    device.device.artifact(big)
    another = host.connect(root=str(root))
    another.device.artifact(big)
    assert (device.sent["artifacts"] - before, another.sent["artifacts"]) == (0, 0)


def test_a_bundle_keeps_its_links_and_modes(device: Remote, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    (bundle / "bin").mkdir(parents=True)
    (bundle / "bin" / "run").write_text("#!/bin/sh\necho ran\n")
    (bundle / "bin" / "run").chmod(0o755)
    (bundle / "link").symlink_to("bin/run")
    folder = Path(device.device.bundle(bundle, "d" * 64))
    assert (folder / "link").readlink() == Path("bin/run")
    assert subprocess.run([folder / "link"], capture_output=True).stdout == b"ran\n"


def test_a_job_gets_what_it_asks_for(host: Any, root: Path, job: Make) -> None:
    device = host.connect(root=str(root), cores=(0,), environment={"ODD": "it's $HOME"})
    code = (
        "found = {name: os.environ[name] for name in ('ODD', 'OMP_NUM_THREADS')}\n"
        "found['cores'] = sorted(os.sched_getaffinity(0))\n"
        "found['texts'] = json.load(open(json.load(open(spec))['inputs']))\n"
        "print('noise'); print('noise', file=sys.stderr); json.dump(found, open(result, 'w'))"
    )
    completed = device.run(job(code))
    found = json.loads(completed.raw)
    assert (found["ODD"], found["OMP_NUM_THREADS"], found["cores"]) == ("it's $HOME", "3", [0])
    assert found["texts"]["texts"] == ["on", "ö"]
    assert completed.stderr.count("noise") == 2
    assert left(root) == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise ValueError('no such layer')", "no such layer"),
        ("sys.exit(7)", "exit code 7"),
        ("sys.exit(255)", "exit code 255"),
        ("pass", "no result"),
        ("os.kill(os.getpid(), signal.SIGILL)", "unsupported_isa"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "out of memory"),
        ("raise OSError(28, 'No space left on device')", "disk is full"),
        (ERROR.format("out_of_memory", ""), "out of memory"),
        (ERROR.format("missing_runtime", "No module named \\'llama_cpp\\'"), "-m pip install llama-cpp-python"),
    ],
)
def test_a_worker_that_dies_is_told(device: Remote, job: Make, root: Path, code: str, words: str) -> None:
    with pytest.raises(DeviceError) as caught:
        device.run(job(code))
    assert words in str(caught.value)
    assert left(root) == []


def test_a_runtime_that_is_missing_is_told(host: Any, artifact: Artifact, root: Path) -> None:
    """The system's Python has no onnxruntime."""
    python = next((p for p in ("/usr/bin/python3", shutil.which("python3")) if p and Path(p).exists()), None)
    probe = "import importlib.util as u; print(u.find_spec('onnxruntime'))"
    if python is None or subprocess.run([python, "-c", probe], capture_output=True, text=True).stdout != "None\n":
        pytest.skip("no Python without onnxruntime here")
    with pytest.raises(DeviceError, match="runtime is missing on") as caught:
        predict(artifact, TABLE, transport=host.connect(root=str(root), python=python))
    assert f"{python} -m pip install" in caught.value.hint


def test_a_python_that_is_missing_is_told(host: Any, root: Path, job: Make) -> None:
    with pytest.raises(DeviceError, match="Python could not be started"):
        host.connect(root=str(root), python="/no/python").run(job("pass"))


def test_a_hung_job_is_killed_there(device: Remote, job: Make, tmp_path: Path, root: Path) -> None:
    note = tmp_path / "pids"
    with pytest.raises(DeviceError, match=r"still running on .* after 10 s"):
        device.run(job(SLEEPER.format(note=str(note)), timeout=10.0))
    assert len(pids(note)) == 2
    wait_for(lambda: all(map(gone, pids(note))), "its end")
    assert left(root) == []


def test_an_interrupt_leaves_nothing_running(device: Remote, job: Make, tmp_path: Path, root: Path) -> None:
    note = tmp_path / "pids"

    def interrupt() -> None:
        wait_for(lambda: bool(pids(note)), "its start")
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        device.run(job(SLEEPER.format(note=str(note))))
    thread.join()
    wait_for(lambda: all(map(gone, pids(note))), "its end")
    assert left(root) == []


def test_a_broken_connection_leaves_nothing_running(
    host: Any, device: Remote, job: Make, tmp_path: Path, root: Path
) -> None:
    note = tmp_path / "pids"

    def cut() -> None:
        wait_for(lambda: bool(pids(note)), "its start")
        host.cut()

    thread = threading.Thread(target=cut)
    thread.start()
    with pytest.raises(DeviceError, match=r"connection broke|went away|unreachable"):
        device.run(job(SLEEPER.format(note=str(note))))
    thread.join()
    wait_for(lambda: all(map(gone, pids(note))), "its end")
    wait_for(lambda: not left(root), f"cleaning up {left(root)}")


def test_two_take_turns(host: Any, root: Path, job: Make, tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = (
        f"log = open({str(log)!r}, 'a', buffering=1)\n"
        "log.write('in\\n'); time.sleep(0.5); log.write('out\\n'); json.dump({}, open(result, 'w'))"
    )
    made = [(host.connect(root=str(root)), job(code)) for _ in range(3)]
    threads = [threading.Thread(target=device.run, args=(work,)) for device, work in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.read_text().split() == ["in", "out"] * 3


def test_a_device_in_use_is_told_and_by_whom(host: Any, root: Path, job: Make, tmp_path: Path) -> None:
    note, end = tmp_path / "pids", tmp_path / "end"
    first, second = host.connect(root=str(root)), host.connect(root=str(root), lock_wait=1.0)
    held = job(
        f"open({str(note)!r}, 'w').write('1\\n')\n"
        f"while not os.path.exists({str(end)!r}): time.sleep(0.05)\n"
        "json.dump({}, open(result, 'w'))"
    )
    thread = threading.Thread(target=first.run, args=(held,))
    thread.start()
    wait_for(lambda: bool(pids(note)), "its start")
    with pytest.raises(DeviceError, match=r"was in use for 1 s by \S+@\S+ since"):
        second.run(job("json.dump({}, open(result, 'w'))"))
    end.touch()
    thread.join()
    assert left(root) == []


def test_what_dead_runs_left_is_cleared(device: Remote, root: Path) -> None:
    old, new = root / "jobs" / "old", root / "jobs" / "new"
    part = root / "artifacts" / "abc.part-1"
    for folder in (old, new, part):
        folder.mkdir(parents=True)
    for folder in (old, part):
        os.utime(folder, (0, 0))
    device.device.ask("true")
    assert left(root) == ["new"]


def test_the_reference_stays_here(device: Remote, job: Make) -> None:
    with pytest.raises(DeviceError, match="needs edgekit itself"):
        device.run(job("pass", package=True))


def test_the_device_is_probed(device: Remote) -> None:
    here, there = describe(), device.probe(("onnxruntime", "no-such-library"))
    names = ("cpu", "arch", "cores", "logical_cores", "memory_bytes", "isa", "system", "python", "governor")
    assert [getattr(there, name) for name in names] == [getattr(here, name) for name in names]
    assert there.libraries == {"onnxruntime": here.libraries["onnxruntime"], "no-such-library": "absent"}
    assert device.identity(("onnxruntime",))["isa"] == " ".join(here.isa)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told(host: Any, small: Path, tmp_path: Path) -> None:
    device = host.connect(root=str(small))
    big = tiny_onnx.make(tmp_path / "big", extra=1)
    weights = np.random.default_rng(0).bytes(4_000_000)
    big.model_file.write_bytes(weights)
    with pytest.raises(DeviceError, match=r"disk is full \(4\.0 MB to push\)") as caught:
        device.device.artifact(big)
    assert f"rm -r {small}/artifacts" in caught.value.hint
    assert list((small / "artifacts").iterdir()) == []
