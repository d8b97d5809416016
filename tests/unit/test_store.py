from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekit.artifact import Artifact, Facts, Manifest, entries
from edgekit.errors import StoreError
from edgekit.store import Store

KEY = "ab" * 32


def manifest(folder: Path, key: str = KEY) -> Manifest:
    return Manifest(
        key=key,
        format="hf",
        stage="prune",
        stage_version=1,
        config={},
        parents={},
        files=entries(folder),
        libraries={},
        facts=Facts(summary="something"),
    )


def put(store: Store, key: str = KEY, text: str = "weights") -> Artifact:
    with store.filling(key) as out:
        (out / "model.safetensors").write_text(text)
        return store.commit(out, manifest(out, key))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_what_is_put_is_found(store: Store) -> None:
    put(store)
    found = store.get(KEY)
    assert found is not None
    assert (found.path / "model.safetensors").read_text() == "weights"
    assert store.find(KEY[:6]).key == KEY
    assert [a.key for a in store.artifacts()] == [KEY]


@pytest.mark.parametrize("damage", ["change", "remove", "add", "manifest"])
def test_a_damaged_artifact_is_not_served(store: Store, damage: str) -> None:
    path = put(store).path
    if damage == "change":
        (path / "model.safetensors").write_text("weightz")
    elif damage == "remove":
        (path / "model.safetensors").unlink()
    elif damage == "add":
        (path / "extra").write_text("")
    else:
        (path / "manifest.json").write_text("{")
    assert store.verify()[KEY]
    assert store.get(KEY) is None
    put(store)
    assert store.get(KEY) is not None


def test_an_error_leaves_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError), store.filling(KEY) as out:
        (out / "half").write_text("half")
        raise RuntimeError("boom")
    assert not store.has(KEY)
    assert list((store.root / "partial").iterdir()) == []


def test_a_full_disk_is_told_and_leaves_nothing(store: Store) -> None:
    with pytest.raises(StoreError, match="No space left") as caught, store.filling(KEY):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "gc" in caught.value.hint
    assert list((store.root / "partial").iterdir()) == []


def test_an_unwritable_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write the store") as caught:
        Store(tmp_path / "file" / "store")
    assert "--store" in caught.value.hint


def test_find_wants_one_match(store: Store) -> None:
    put(store)
    with pytest.raises(StoreError, match="0 artifacts"):
        store.find("ffff")
    with pytest.raises(StoreError):
        store.find("ab")


def test_export_wants_an_empty_folder(store: Store, tmp_path: Path) -> None:
    artifact = put(store)
    out = store.export(artifact, tmp_path / "out")
    assert Artifact.open(out).damage() == []
    with pytest.raises(StoreError, match="not empty"):
        store.export(artifact, tmp_path / "out")


def test_gc_removes_what_is_old_and_what_crashes_left(store: Store) -> None:
    old = put(store, "aa" * 32)
    put(store, "bb" * 32)
    left = store.root / "partial" / f"{'cc' * 32}-1"
    left.mkdir()
    past = time.time() - 40 * 86400
    references = store.predictions / "references"
    for name in ("dd", "ee"):
        (references / (name * 32)).mkdir()
        (references / (name * 32) / "logprobs.npy").write_bytes(b"0" * 100)
    for unused in (old.path, left, references / ("dd" * 32)):
        os.utime(unused, (past, past))
    removed, freed = store.gc(keep_days=30)
    assert len(removed) == 3
    assert freed > 100
    assert [folder.name for folder in references.iterdir()] == ["ee" * 32]
    assert [a.key for a in store.artifacts()] == ["bb" * 32]


def test_a_second_process_waits_and_finds_the_result(store: Store, tmp_path: Path) -> None:
    """A real second process holds the lock, writes the artifact, and lets go."""
    code = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_store import put, KEY
from edgekit.store import Store
store = Store(Path({str(store.root)!r}))
with store.lock(KEY, lambda: None):
    Path({str(tmp_path / "held")!r}).touch()
    time.sleep(1)
    put(store)
"""
    other = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not (tmp_path / "held").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    waited = []
    with store.lock(KEY, lambda: waited.append(True)):
        assert store.get(KEY) is not None
    assert waited == [True]
    assert other.wait() == 0
