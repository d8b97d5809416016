"""A device behind a shell, and the folder below which everything of ours lies there:

artifacts, bundles, workers: DIGEST   kept, pushed once
jobs/RANDOM                           one piece of work's own; goes away with it
lock, lock.holder                     held while work runs
"""

from __future__ import annotations

import io
import secrets
import shlex
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import IO

from edgekit.artifact import MANIFEST, Artifact
from edgekit.digest import digest_file, digest_json, list_files
from edgekit.errors import DeviceError
from edgekit.jobs import WORKERS
from edgekit.transports.failures import push_failed, setup_failed
from edgekit.transports.shell import Answer, Feed, Shell, ask

__all__ = ["Device"]

COMPLETE = ".complete"  # last file of every push: a stream that was cut off lacks it
ASK_SECONDS = 60.0
SLOWEST = 100_000  # bytes a second that a push may take before it counts as hung
TOOLS = "cat env find flock mv rm setsid tail tar taskset timeout"
Files = Sequence[tuple[str, Path]]  # name there, path here


class Device:
    """An open connection. `sent`: bytes pushed so far, by kind ("artifacts", "bundles", "workers", "jobs"); `home` and
    `root`: the user's folder there, and ours."""

    def __init__(self, shell: Shell, root: str) -> None:
        """Find or make the root folder and clear what dead runs left (older than a day).

        Raises DeviceError where the device is not reached, lacks a tool, or lets nothing be written.
        """
        self.shell = shell
        self.sent: Counter[str] = Counter()
        place = f'"$HOME"/{shlex.quote(root[2:])}' if root.startswith("~/") else shlex.quote(root)
        answer = self.ask(
            f'root={place}; mkdir -p "$root/artifacts" "$root/bundles" "$root/workers" "$root/jobs" || exit; '
            f'for tool in {TOOLS}; do command -v "$tool" >/dev/null || echo "$tool"; done; '
            '(flock -n 9 && find "$root" -mindepth 2 -maxdepth 2 -mtime +0 '
            r'\( -path "$root/jobs/*" -o -name "*.part-*" \) -exec rm -rf {} +) 9>>"$root/lock"; '
            'echo "$HOME"; echo "$root"'
        )
        *missing, self.home, self.root = answer.out.decode().split("\n")[:-1] or ["", ""]
        if answer.code or missing:
            raise setup_failed(shell.name, root, tuple(missing), answer.err)

    def ask(self, line: str, *, timeout: float = ASK_SECONDS, feed: Feed | None = None, hold: bool = False) -> Answer:
        """See `shell.ask`."""
        return ask(self.shell, line, timeout=timeout, feed=feed, hold=hold)

    def artifact(self, artifact: Artifact) -> str:
        """Bring the files that the manifest names, and it; the folder there. Raises DeviceError."""
        names = [*sorted(artifact.files), MANIFEST]
        return self._keep("artifacts", artifact.content, [(name, artifact.path / name) for name in names])

    def bundle(self, folder: Path, digest: str) -> str:
        """Bring a folder as it is; where it lies there. Raises DeviceError."""
        return self._keep("bundles", digest, [(".", folder)])

    @cached_property
    def workers(self) -> str:
        """The workers' folder there, brought if need be. Raises DeviceError."""
        files = {
            path.relative_to(WORKERS).as_posix(): path
            for path in list_files(WORKERS)
            if "__pycache__" not in path.parts
        }
        digest = digest_json({name: digest_file(path) for name, path in files.items()})
        return self._keep("workers", digest, list(files.items()))

    def new_job(self) -> str:
        """A path for a job's folder, not made yet."""
        return f"{self.root}/jobs/{secrets.token_hex(8)}"

    def push_job(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Make a job's folder with these files in it. Raises DeviceError."""
        self._push("jobs", folder, (), files)

    def fetch(self, path: str) -> bytes:
        """A file's content; empty where there is none. Raises DeviceError."""
        name = shlex.quote(path)
        answer = self.ask(f"[ ! -e {name} ] || cat {name}")
        if answer.code:
            raise DeviceError(f"{self.shell.name}: {path} could not be read ({answer.err.strip()})")
        return answer.out

    def remove(self, folder: str) -> None:
        """Remove a job's folder, if the device is still there."""
        with suppress(DeviceError):
            self.ask(f"rm -rf {shlex.quote(folder)}")

    def _keep(self, kind: str, key: str, files: Files) -> str:
        for name in (key, *(name for name, _ in files)):
            if name.startswith("/") or ".." in name.split("/"):
                raise DeviceError(f"{name!r} of {kind} would lie outside of its folder", hint="do not trust that file")
        folder = f"{self.root}/{kind}/{key}"
        if self.ask(f"[ -d {shlex.quote(folder)} ]").code:
            self._push(kind, folder, files, {})
        return folder

    def _push(self, kind: str, folder: str, files: Files, texts: Mapping[str, bytes]) -> None:
        """Unpack into a folder beside it, which then gets the name: what has the name is whole."""
        size = sum(path.stat().st_size for _, root in files for path in _below(root))
        part = f"{folder}.part-{secrets.token_hex(4)}"

        def feed(stdin: IO[bytes]) -> None:
            counter = _Counted(stdin)
            try:
                _pack(counter, files, texts)
            finally:
                self.sent[kind] += counter.count

        answer = self.ask(
            f"part={shlex.quote(part)} folder={shlex.quote(folder)}; "
            f'LC_ALL=C mkdir "$part" && LC_ALL=C tar -xom -C "$part" -f - && [ -e "$part/{COMPLETE}" ] '
            '&& { [ ! -d "$folder" ] || exit 0; } && mv "$part" "$folder" '
            '|| { code=$?; rm -rf "$part"; exit "$code"; }',
            timeout=ASK_SECONDS + size / SLOWEST,
            feed=feed,
        )
        if answer.code:
            raise push_failed(self.shell.name, self.root, size, answer.err)


class _Counted(io.RawIOBase):
    """Passes on what is written, and counts it."""

    def __init__(self, stdin: IO[bytes]) -> None:
        self.stdin = stdin
        self.count = 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.stdin.write(data)
        self.count += len(data)
        return len(data)


def _below(path: Path) -> list[Path]:
    return list_files(path) if path.is_dir() else [path]


def _pack(out: IO[bytes] | _Counted, files: Files, texts: Mapping[str, bytes]) -> None:
    """A tar stream of the files, the texts, and the mark of completeness."""
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT) as tar:
        for name, path in files:
            tar.add(path, name)
        for name, content in {**texts, COMPLETE: b""}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
