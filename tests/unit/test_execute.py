from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgekit.artifact import Artifact, Task
from edgekit.data.table import Table
from edgekit.errors import StageError, StoreError
from edgekit.execute import Environment, execute
from edgekit.plan import PlanStep
from edgekit.progress import Silent
from edgekit.shapes import Cost
from edgekit.stages.base import Config
from edgekit.stages.prune import Prune
from edgekit.store import Store

KEY = "cd" * 32
TASK = Task(labels=("a", "b", "c"), max_length=16)
TABLES = {"train": Table(("where is my card", "please top up"), None, ("a", "b"))}


def step(config: Config) -> PlanStep:
    return PlanStep("prune", "prune", config, "model", (), ("train",), KEY, False, Cost(0, 0, 0.0))


def run(store: Store, folder: Path, config: Config) -> Artifact:
    source = Artifact.outside(folder, TASK)
    return execute(step(config), source, (), TABLES, TASK, Environment(store, Silent())).artifact  # type: ignore[arg-type]


def test_a_step_is_sealed_with_all_that_made_it(tiny: Callable[..., Path], tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    made = run(store, tiny("bert", layers=2), Prune(keep_layers=1, importance="magnitude", reconstruct=False))
    assert made.damage() == []
    assert made.manifest.parents.keys() == {"source", "train"}
    assert made.manifest.config["keep_layers"] == 1
    assert made.manifest.libraries["torch"] != "absent"
    assert not (store.root / "scratch" / KEY).exists()


def test_a_step_that_changes_nothing_fails_and_is_not_kept(tiny: Callable[..., Path], tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(StageError, match="changed nothing"):
        run(store, tiny("bert"), Prune())
    assert not store.has(KEY)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 200 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_and_nothing_half_written_stays(tiny: Callable[..., Path], small_disk: Path) -> None:
    store = Store(small_disk / "store")
    (small_disk / "filler").write_bytes(b"x" * 120_000)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        run(store, tiny("bert", layers=4), Prune(keep_layers=3, importance="magnitude", reconstruct=False))
    assert "finished steps are kept" in caught.value.hint
    assert not store.has(KEY)
    assert list((store.root / "partial").iterdir()) == []
