"""The store: one folder per artifact, named by its key; written atomically under a lock, read without one.

ROOT/artifacts/<key>/          sealed folders
ROOT/partial/<key>-<pid>/      being filled; a crash leaves only these, and `gc` removes them
ROOT/scratch/<key>/            what a stage keeps to resume after a kill (checkpoints); removed when the step is done
ROOT/predictions/<digest>      accuracy measurements, by artifact, data and runtime
ROOT/predictions/references/<digest>/   a language model's probabilities, that other files are held against; large
ROOT/locks/<key>.lock          one writer per key: a second run waits, then finds the result
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from edgekit.artifact import Artifact, Manifest, seal
from edgekit.digest import SHORT
from edgekit.errors import StoreError

__all__ = ["Store", "default_root"]

FULL = 1_000_000  # bytes free under which a failed write is put down to a full disk


def default_root() -> Path:
    """$EDGEKIT_STORE, or the user's cache folder."""
    chosen = os.environ.get("EDGEKIT_STORE")
    if chosen:
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "edgekit" / "store"


class Store:
    """Sealed artifacts by key. Safe for several processes at once."""

    def __init__(self, root: Path) -> None:
        """Open or create a store. Raises StoreError where the folder cannot be written."""
        self.root = root
        try:
            for name in ("artifacts", "partial", "scratch", "predictions/references", "locks"):
                (root / name).mkdir(parents=True, exist_ok=True)
            if not os.access(root / "artifacts", os.W_OK):
                raise PermissionError(errno.EACCES, "not writable")
        except OSError as error:
            hint = "choose another folder with --store or $EDGEKIT_STORE"
            raise StoreError(f"cannot write the store {root}: {error.strerror}", hint=hint) from None

    def path(self, key: str) -> Path:
        return self.root / "artifacts" / key

    def scratch(self, key: str) -> Path:
        """A folder that survives a kill, for the step with this key."""
        folder = self.root / "scratch" / key
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def predictions(self) -> Path:
        """Where accuracy measurements are kept."""
        return self.root / "predictions"

    def has(self, key: str) -> bool:
        """Whether a sealed artifact is there (files are not read; `get` checks them)."""
        return (self.path(key) / "manifest.json").is_file()

    def get(self, key: str) -> Artifact | None:
        """The sealed artifact, its files checked against their digests; a damaged one is removed and None returned."""
        if not self.has(key):
            return None
        try:
            artifact = Artifact.open(self.path(key))
            damage = artifact.damage()
        except StoreError as error:
            damage = [str(error)]
        if not damage:
            return artifact
        self._discard(self.path(key))
        return None

    def find(self, prefix: str) -> Artifact:
        """The artifact whose key starts with `prefix` (4 characters or more). Raises StoreError unless there is one."""
        matches = [p for p in sorted((self.root / "artifacts").iterdir()) if p.name.startswith(prefix)]
        if len(prefix) < 4 or len(matches) != 1:
            raise StoreError(f"{len(matches)} artifacts start with {prefix!r}", hint="see: edgekit store ls")
        return Artifact.open(matches[0])

    @contextmanager
    def lock(self, key: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the key's lock; `waiting` is called once if another process has it."""
        lock = FileLock(self.root / "locks" / f"{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting()
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def filling(self, key: str) -> Iterator[Path]:
        """An empty folder to fill. It is removed on any error, so that nothing half-written is ever visible.

        Raises StoreError for a full disk or a folder that cannot be written.
        """
        folder = self.root / "partial" / f"{key}-{os.getpid()}"
        self._discard(folder)
        try:
            folder.mkdir(parents=True)
            yield folder
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            reason = self._why_unwritable(folder, error)
            if not reason:
                raise
            hint = "free some space (edgekit store gc) or choose another folder with --store; finished steps are kept"
            raise StoreError(f"cannot write {folder}: {reason}", hint=hint) from error
        finally:
            self._discard(folder)

    @staticmethod
    def _why_unwritable(folder: Path, error: Exception) -> str:
        """The reason, where it is the disk: libraries say so in errors of their own, so the disk itself is asked."""
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            return error.strerror or str(error)
        return "No space left on device" if shutil.disk_usage(folder.parent).free < FULL else ""

    def commit(self, folder: Path, manifest: Manifest) -> Artifact:
        """Seal a filled folder and rename it into place (atomic on one file system)."""
        seal(folder, manifest)
        target = self.path(manifest.key)
        if target.exists():
            self._discard(target)
        folder.replace(target)
        shutil.rmtree(self.root / "scratch" / manifest.key, ignore_errors=True)
        return Artifact.open(target)

    def artifacts(self) -> list[Artifact]:
        """All readable artifacts, newest first."""
        folders = [p for p in (self.root / "artifacts").iterdir() if (p / "manifest.json").is_file()]
        folders.sort(key=lambda p: p.stat().st_mtime, reverse=True)
        found = []
        for folder in folders:
            try:
                found.append(Artifact.open(folder))
            except StoreError:
                continue
        return found

    def verify(self) -> dict[str, list[str]]:
        """Key -> what is damaged, for every artifact; empty lists where sound."""
        result = {}
        for folder in sorted((self.root / "artifacts").iterdir()):
            try:
                result[folder.name] = Artifact.open(folder).damage()
            except StoreError as error:
                result[folder.name] = [error.what]
        return result

    def gc(self, keep_days: float) -> tuple[list[str], int]:
        """Remove artifacts and references unused for `keep_days`, and what crashes left. Returns the removed names and
        bytes freed."""
        limit = time.time() - keep_days * 86400
        removed, freed = [], 0
        for kind in ("artifacts", "partial", "scratch", "predictions/references"):
            for folder in sorted((self.root / kind).iterdir()):
                if folder.stat().st_mtime > limit or self._busy(folder.name[:64]):
                    continue
                freed += sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
                removed.append(f"{kind}/{folder.name[:SHORT]}")
                self._discard(folder)
        return removed, freed

    def export(self, artifact: Artifact, out: Path) -> Path:
        """Copy an artifact's files to `out` (created; must be empty). Raises StoreError where it is not empty."""
        if out.exists() and any(out.iterdir()):
            raise StoreError(f"{out} is not empty", hint="give an empty or new folder")
        shutil.copytree(artifact.path, out, dirs_exist_ok=True)
        return out

    def touch(self, artifact: Artifact) -> None:
        """Mark as used now, so that `gc` keeps it."""
        os.utime(artifact.path)

    def _busy(self, key: str) -> bool:
        lock = FileLock(self.root / "locks" / f"{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False

    @staticmethod
    def _discard(folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
