"""An artifact: a sealed, immutable folder with `manifest.json`; or a folder from outside, described the same way."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue, SerializerFunctionWrapHandler, ValidationError, model_serializer

from edgekit.digest import SHORT, digest_file, digest_json, list_files
from edgekit.errors import StoreError

__all__ = [
    "ENCODER_KINDS",
    "MANIFEST",
    "Artifact",
    "Facts",
    "FileEntry",
    "Format",
    "Manifest",
    "Skipped",
    "Task",
    "TaskKind",
    "library_versions",
]

MANIFEST = "manifest.json"
OUTSIDE = "source"  # the stage of a folder that no stage made
Format = Literal["hf", "onnx", "gguf", "onnx-genai", "onnx-seq2seq", "openvino"]
TaskKind = Literal[
    "text-classification",
    "token-classification",
    "question-answering",
    "sentence-similarity",
    "image-classification",
    "language-modeling",
    "text-to-text",
]
ENCODER_KINDS: tuple[TaskKind, ...] = (  # what their stages serve
    "text-classification",
    "token-classification",
    "question-answering",
    "sentence-similarity",
    "image-classification",
)


class Frozen(BaseModel):
    """Base of all values: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Task(Frozen):
    """What the model is for; it travels with the artifact, so that a file can be run without its recipe.

    `max_length` in tokens: of an encoder's longest input (of a picture all it is cut into), of a window of text that a
    language model is measured on.
    `labels`: empty for a language model, and where an answer is no label. `pair`: a row is two texts. Of question
    answering alone, and written for it alone (the keys of other tasks' steps stay what they were): `overlap`, tokens of
    a context that neighbouring windows share, and `longest_answer`, in tokens.
    """

    kind: TaskKind = "text-classification"
    labels: tuple[str, ...] = ()
    max_length: int
    pair: bool = False
    segments: bool = False  # True: token type ids tell the two texts apart; False: always zero
    overlap: int = 128
    longest_answer: int = 30

    @model_serializer(mode="wrap")
    def _of_its_kind(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = write(self)
        if self.kind != "question-answering":
            found = {name: value for name, value in found.items() if name not in ("overlap", "longest_answer")}
        return found


class Skipped(Frozen):
    """Something a stage left alone, and why."""

    name: str
    reason: str


class Facts(Frozen):
    """What a stage did: nothing changes silently. `changed=False` makes the runner fail the step, unless it was
    `dropped`: tried, found to lose to something else (summary and warnings say to what), and the source handed on."""

    summary: str
    changed: bool = True
    dropped: bool = False
    touched: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[str, ...] = ()
    numbers: dict[str, float | int | str | bool] = {}


class FileEntry(Frozen):
    """A file's digest and size (bytes)."""

    sha256: str
    size: int


class Manifest(Frozen):
    """What is known of an artifact. `parents` maps an input's name to the key of the artifact it was."""

    schema_version: Literal[1] = 1
    key: str
    format: Format
    stage: str
    stage_version: int
    config: dict[str, JsonValue]
    parents: dict[str, str]
    files: dict[str, FileEntry]
    libraries: dict[str, str]
    facts: Facts
    task: Task | None = None
    metrics: dict[str, float] = {}
    seconds: float = 0.0
    machine: str = ""


@dataclass(frozen=True)
class Artifact:
    """A folder and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def key(self) -> str:
        return self.manifest.key

    @property
    def short(self) -> str:
        return self.manifest.key[:SHORT]

    @property
    def files(self) -> dict[str, FileEntry]:
        """Its files but the manifest; of a folder that is not sealed yet, those on disk."""
        return self.manifest.files or entries(self.path)

    @property
    def content(self) -> str:
        """Digest of its files' names and bytes. Unlike the key (of a stage's inputs), equal only for equal files."""
        return digest_json({name: entry.sha256 for name, entry in self.files.items()})

    @property
    def format(self) -> Format:
        return self.manifest.format

    @property
    def task(self) -> Task | None:
        return self.manifest.task

    @property
    def from_outside(self) -> bool:
        """Whether edgekit did not write it."""
        return self.manifest.stage == OUTSIDE

    @property
    def size_bytes(self) -> int:
        """Bytes of the model file itself: what a device has to hold (tokenizer and notes left out)."""
        return sum(e.size for n, e in self.manifest.files.items() if Path(n).suffix in MODEL_SUFFIXES)

    @property
    def model_file(self) -> Path:
        """The one model file; of a checkpoint in shards, where its only file would be; of two, the decoder."""
        names = {
            "hf": "model.safetensors",
            "onnx-genai": "model.onnx",
            "onnx-seq2seq": "decoder.onnx",
            "openvino": "model.xml",
        }
        return self.path / names.get(self.format, f"model.{self.format}")

    @classmethod
    def open(cls, path: Path) -> Artifact:
        """Read a sealed folder's manifest.

        Raises StoreError where the manifest is missing or damaged.
        """
        try:
            manifest = Manifest.model_validate_json((path / MANIFEST).read_bytes())
        except FileNotFoundError:
            raise StoreError(f"{path}: no {MANIFEST}", hint=_hint(path)) from None
        except (ValidationError, OSError) as error:
            raise StoreError(f"{path / MANIFEST}: damaged ({str(error).splitlines()[0]})") from None
        return cls(path, manifest)

    @classmethod
    def outside(cls, path: Path, task: Task | None) -> Artifact:
        """Describe a Transformers folder that edgekit did not write; its key is the digest of its files."""
        files = entries(path)
        content: JsonValue = {name: entry.sha256 for name, entry in files.items()}
        manifest = Manifest(
            key=digest_json({"outside": content}),
            format="hf",
            stage=OUTSIDE,
            stage_version=1,
            config={},
            parents={},
            files=files,
            libraries={},
            facts=Facts(summary="a model from outside"),
            task=task,
        )
        return cls(path, manifest)

    def damage(self) -> list[str]:
        """What is wrong with the files on disk: missing, added or changed names; empty when sound."""
        wanted = self.manifest.files
        found = {p.relative_to(self.path).as_posix(): p for p in list_files(self.path)}
        found.pop(MANIFEST, None)
        problems = [f"{name}: missing" for name in sorted(wanted.keys() - found.keys())]
        problems += [f"{name}: not in the manifest" for name in sorted(found.keys() - wanted.keys())]
        for name in sorted(wanted.keys() & found.keys()):
            if found[name].stat().st_size != wanted[name].size or digest_file(found[name]) != wanted[name].sha256:
                problems.append(f"{name}: changed")
        return problems


def _hint(path: Path) -> str:
    """What may have been meant instead of a folder without a manifest."""
    if not path.is_dir():
        return "there is no such folder"
    inside = sorted(child.name for child in path.iterdir() if (child / MANIFEST).is_file())
    if not inside:
        return "this folder was not written by edgekit"
    return f"name one of the folders in it: {', '.join(inside[:6])}"


MODEL_SUFFIXES = {".safetensors", ".onnx", ".gguf", ".data", ".xml", ".bin"}


def entries(folder: Path) -> dict[str, FileEntry]:
    """Digest and size of every file below `folder` but its manifest."""
    return {
        p.relative_to(folder).as_posix(): FileEntry(sha256=digest_file(p), size=p.stat().st_size)
        for p in list_files(folder)
        if p != folder / MANIFEST
    }


def seal(folder: Path, manifest: Manifest) -> Artifact:
    """Write the manifest; the caller then renames the folder into place."""
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, sort_keys=True)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return Artifact(folder, manifest)


def library_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Installed versions of distributions; "absent" for one that is not installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def machine_name() -> str:
    """Architecture and system of this machine, for manifests (recorded, not keyed)."""
    return f"{platform.system()} {platform.machine()}"
