"""Two real processes that train one model, started as a user does, against one that trains it alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from edgekit.errors import UsageError
from edgekit.nn.processes import ALONE, Processes, device_here, processes, shard

pytest.importorskip("accelerate")
ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}


def command(model: Path, data: Path, out: Path) -> list[str]:
    """edgekit finetune in the settings of this test, without the program that runs it."""
    options = ["--train", str(data), "--validation", str(data), "--max-length", "16", "--device", "cpu"]
    options += ["--epochs", "2", "--batch-size", "7", "--accumulate", "2", "--precision", "fp32", "--patience", "1"]
    return ["finetune", str(model), str(out), *options, "--store", str(out.parent / f"store-{out.name}"), "--json"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, subprocess.CompletedProcess[str]]]:
    """The same command run by one process and by two; the model has no dropout, whose masks are each process's own."""
    from tests.conftest import write_tiny

    home = tmp_path_factory.mktemp("processes")
    model = write_tiny(home / "model", "bert")
    config = json.loads((model / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (model / "config.json").write_text(json.dumps(config))
    rows = "".join(f"my card is {word} {n},{word}\n" for n in range(9) for word in ("lost", "arrived", "waiting"))
    (home / "data.csv").write_text(f"text,label\n{rows}")
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1"]
    launch += ["--main_process_port", "0"]
    found = {}
    for name, program in (("one", [sys.executable, "-m", "edgekit"]), ("two", [*launch, "-m", "edgekit"])):
        given = [*program, *command(model, home / "data.csv", home / name)]
        done = subprocess.run(
            given, env=ENVIRONMENT, cwd=home, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr
        found[name] = home / name, done
    return found


def test_two_processes_end_where_one_does(trained: dict[str, tuple[Path, subprocess.CompletedProcess[str]]]) -> None:
    one, two = (load_file(trained[name][0] / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=2e-5, rtol=1e-3)
    before = load_file(trained["one"][0].parent / "model" / "model.safetensors")
    assert not torch.equal(one["classifier.weight"], before["classifier.weight"])


def test_the_main_process_speaks_and_writes_alone(
    trained: dict[str, tuple[Path, subprocess.CompletedProcess[str]]],
) -> None:
    facts = []
    for out, done in trained.values():
        told = json.loads(done.stdout)  # one document, so one process printed it
        assert told["cached"] is False
        assert done.stderr.count("epoch 1 of 2") == 1
        assert ("2 processes share each batch" in done.stderr) == (out.name == "two")
        store = out.parent / f"store-{out.name}"
        assert len(list((store / "artifacts").iterdir())) == 1
        assert not list((store / "partial").iterdir())
        facts.append(told["manifest"]["facts"])
    assert facts[0]["numbers"] == facts[1]["numbers"]


def test_a_batch_is_shared_out() -> None:
    rows = [4, 1, 7, 2, 9]
    parts = [shard(rows, Processes(rank, 3)) for rank in range(3)]
    assert parts == [[4, 2], [1, 9], [7]]
    assert shard([1], Processes(2, 3)) == []
    assert shard(rows, ALONE) == rows


def test_alone_nothing_is_asked_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = processes()
    assert world is ALONE
    assert world.main
    assert world.added([1.5, 2.0]) == [1.5, 2.0]
    assert world.figures_of_main({"loss": 2.0}) == {"loss": 2.0}
    assert world.told(True)
    assert not torch.distributed.is_initialized()


def test_each_process_of_a_machine_has_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert device_here() == "cuda"
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert device_here() == "cuda:2"


def test_variables_that_name_no_others_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match=r"2 processes were asked for.*RANK"):
        processes()
