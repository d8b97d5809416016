"""Exported classifiers on emulated Arm cores: the same answers, instruction counts that repeat, and what cannot run."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgekit.artifact import Artifact, Facts, Manifest, Task, entries, seal
from edgekit.bench import measure
from edgekit.data.table import Table
from edgekit.errors import DeviceError
from edgekit.evaluate import predict
from edgekit.jobs import WORKERS, Call, Inputs, Job
from edgekit.launchers.bundle import Bundle
from edgekit.launchers.qemu import Qemu
from edgekit.progress import Silent
from edgekit.provision.arm64 import find, missing, setup
from edgekit.provision.cache import cache_root
from edgekit.provision.cores import Core
from edgekit.provision.start import QEMU
from edgekit.runtimes import Workload
from edgekit.stages.base import Context
from edgekit.stages.export import Export, export
from edgekit.stages.quantize import Quantize, quantize
from edgekit.transports import LOCAL, Local
from tests.conftest import write_tiny

PROBLEMS = missing(cache_root())
pytestmark = [
    pytest.mark.arm64,
    pytest.mark.skipif(bool(PROBLEMS), reason="; ".join(map(str, PROBLEMS))),
]
counting = pytest.mark.skipif(
    not PROBLEMS and not find(cache_root()).counts, reason="this qemu takes no plugins: instructions are not counted"
)
TASK = Task(labels=("a", "b", "c"), max_length=16)
TEXTS = ("where is my card", "please top up the cash", "transfer not arrived", "lost money", "is the rate up", "my")
TABLE = Table(TEXTS, name="texts")
CORES: tuple[Core, ...] = ("cortex-a53", "cortex-a76")  # without and with dotprod
LONG = Table(tuple(f"{' '.join(TEXTS)} {' '.join(TEXTS[:at])}"[: 40 + 2 * at] for at in range(8)), name="long")
WORKLOAD = Workload(items=8, threads=1)
# ctypes calls `udot v0.4s, v1.16b, v2.16b; ret`: what a program built for dotprod holds
DOTPROD = """
import ctypes, json, mmap, sys
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(b"".join(word.to_bytes(4, "little") for word in (0x6E829420, 0xD65F03C0)))
ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
json.dump("done", open(sys.argv[2], "w"))
"""


def on(core: Core) -> Local:
    return Local(launcher=Qemu(core))


def sealed(folder: Path) -> Artifact:
    known = {"key": f"{folder.name:0<64}", "format": "onnx", "stage": "export", "stage_version": 1, "config": {}}
    rest = {"parents": {}, "libraries": {}, "facts": Facts(summary="made in a test"), "task": TASK}
    return seal(folder, Manifest.model_validate({**known, **rest, "files": entries(folder)}))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """A tiny BERT classifier, exported, and its int8 copy."""
    made = tmp_path_factory.mktemp("made")
    context = Context(data={"validation": TABLE}, threads=1)
    for name in ("fp32", "int8"):
        (made / name).mkdir()
    export(Artifact.outside(write_tiny(made / "hf", "bert"), TASK), Export(), made / "fp32", context)
    fp32 = sealed(made / "fp32")
    quantize(fp32, Quantize(method="int8-dynamic"), made / "int8", context)
    return {"fp32": fp32, "int8": sealed(made / "int8")}


def job(artifact: Artifact, folder: Path, code: str) -> Job:
    (folder / "worker.py").write_text(code, encoding="utf-8")
    return Job(artifact, str(folder / "worker.py"), "model.onnx", None, Inputs(("on",), None, 8), Call("predict", 1))


@pytest.mark.parametrize("core", CORES)
def test_the_answers_are_those_of_x86(files: dict[str, Artifact], core: Core) -> None:
    for name, tolerance in (("fp32", 1e-5), ("int8", 1e-4)):
        here, there = predict(files[name], TABLE, threads=1), predict(files[name], TABLE, threads=1, transport=on(core))
        assert np.abs(here.logits - there.logits).max() <= tolerance, name
        assert (here.version, there.providers) == (there.version, ("CPUExecutionProvider",))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A classifier as wide as small real ones (256): in the tiny one, memory management is a good part of the work."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    made = tmp_path_factory.mktemp("wide")
    source = write_tiny(made / "hf", "bert")
    config = AutoConfig.from_pretrained(source, hidden_size=256, intermediate_size=1024)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(source)
    (made / "out").mkdir()
    context = Context(data={"validation": TABLE}, threads=1)
    export(Artifact.outside(source, TASK), Export(), made / "out", context)
    return sealed(made / "out")


@counting
def test_counts_repeat_and_nothing_is_timed(wide: Artifact) -> None:
    benches = [measure({"wide": wide}, "wide", LONG, WORKLOAD, transport=on("cortex-a76")) for _ in range(2)]
    first, second = (np.array(bench.blocks[0].instructions) for bench in benches)
    assert len(first) == len(LONG)
    assert np.median(first) > 1e6
    assert np.abs(first - second).max() / np.median(first) < 0.002
    found, conditions = benches[0].measurements["wide"], benches[0].conditions
    assert found.instructions is not None
    assert found.instructions.median == np.median(first)
    assert (found.latency_ms, found.speedup, found.load_ms, found.first_ms) == (None, None, None, None)
    assert (found.peak_rss_bytes, found.throughput, benches[0].control) == (None, (), None)
    assert (conditions.fidelity, conditions.transport) == ("emulated", "local, cortex-a76")


@counting
def test_an_int8_file_takes_other_instructions_on_a_core_with_dotprod(files: dict[str, Artifact]) -> None:
    old, new = (measure(files, "fp32", LONG, WORKLOAD, transport=on(core)).measurements for core in CORES)
    assert set(old) == set(new) == {"fp32", "int8"}
    counts = {core: found["int8"].instructions for core, found in zip(CORES, (old, new), strict=True)}
    assert all(counts.values())
    assert counts["cortex-a53"].median > 1.02 * counts["cortex-a76"].median


@counting
def test_longer_texts_take_more_instructions(wide: Artifact) -> None:
    texts = Table(("my card",) * 4 + ("my card " * 7,) * 4)
    counts = measure({"wide": wide}, "wide", texts, WORKLOAD, transport=on("cortex-a53")).blocks[0].instructions
    assert max(counts) > 2 * min(counts)


def test_without_a_counter_nothing_is_counted(files: dict[str, Artifact], tmp_path: Path) -> None:
    code = "import json, sys; json.dump(1, open(sys.argv[2], 'w'))"
    launcher = Qemu("cortex-a53", count=False)
    assert Local(launcher=launcher).run(job(files["fp32"], tmp_path, code)).instructions == ()


def test_instructions_that_a_core_lacks_are_told(files: dict[str, Artifact], tmp_path: Path) -> None:
    dotprod = job(files["fp32"], tmp_path, DOTPROD)
    assert json.loads(on("cortex-a76").run(dotprod).raw) == "done"
    with pytest.raises(DeviceError, match=r"worker on fp32 failed: unsupported_isa: .*\(SIGILL\)"):
        on("cortex-a53").run(dotprod)


@pytest.mark.ssh
def test_the_same_over_ssh_pushed_once(
    files: dict[str, Artifact], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    host = request.getfixturevalue("sshd")
    far = host.connect(root=str(tmp_path / "a root, with a comma"), launcher=Qemu("cortex-a53"))
    bench = measure({"fp32": files["fp32"]}, "fp32", TABLE, WORKLOAD, transport=far)
    assert len(bench.blocks[0].instructions) == (8 if find(cache_root()).counts else 0)
    before = dict(far.sent)
    assert before["bundles"] > 100 << 20
    there = predict(files["fp32"], TABLE, threads=1, transport=far)
    assert np.abs(predict(files["fp32"], TABLE, threads=1).logits - there.logits).max() <= 1e-5
    assert far.sent["bundles"] == before["bundles"]
    with pytest.raises(DeviceError, match="unsupported_isa"):
        far.run(job(files["fp32"], tmp_path, DOTPROD))


def test_the_bundle_starts_by_its_own_loader(files: dict[str, Artifact], tmp_path: Path) -> None:
    """A device's command line, word for word, after qemu's. Only the profile of the core is from here (`-L`)."""

    class Place:
        def bundle(self, folder: Path, digest: str) -> str:
            return str(folder)

    found = find(cache_root())
    command = Bundle().command(Place())  # type: ignore[arg-type]
    split = command.index(f"{found.root}/bundle/lib/ld-linux-aarch64.so.1")
    assert command[0] == "env"
    model, tokenizer = files["fp32"].path / "model.onnx", files["fp32"].path / "tokenizer.json"
    inputs = {"texts": list(TEXTS), "pairs": None, "max_length": 16, "segments": False, "pad_id": 0}
    (tmp_path / "inputs.json").write_text(json.dumps(inputs), encoding="utf-8")
    spec = {"model": str(model), "tokenizer": str(tokenizer), "inputs": str(tmp_path / "inputs.json"), "threads": 1}
    spec |= {"provider": "CPUExecutionProvider", "mode": "predict", "batch": 1, "items": None}
    (tmp_path / "job.json").write_text(json.dumps(spec), encoding="utf-8")
    qemu = [QEMU, "-cpu", "cortex-a72", "-L", str(found.root / "cores" / "cortex-a72")]
    worker = [str(WORKERS / "ort_worker.py"), str(tmp_path / "job.json"), str(tmp_path / "result.json")]
    subprocess.run([*command[:split], *qemu, *command[split:], *worker], check=True, cwd=tmp_path)
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert result["error"] is None
    here = predict(files["fp32"], TABLE, threads=1, transport=LOCAL)
    assert np.abs(np.array(result["logits"]) - here.logits).max() <= 1e-5


def test_a_second_setup_does_nothing_and_jobs_leave_the_bundle_as_it_was() -> None:
    root = find(cache_root()).root
    before = (root / "digests.json").stat().st_mtime_ns
    assert setup(cache_root(), Silent()) == root
    assert (root / "digests.json").stat().st_mtime_ns == before
    newest = max(path.stat().st_ctime_ns for path in (root / "bundle").rglob("*"))
    assert newest <= (root / "digests.json").stat().st_ctime_ns
