"""What an artifact is: its key says how it was made, its content what it holds."""

from __future__ import annotations

from pathlib import Path

import tiny_onnx

from edgekit.artifact import Artifact


def test_content_is_the_files_whatever_the_key(tmp_path: Path) -> None:
    first = tiny_onnx.make(tmp_path / "first")
    same = tiny_onnx.make(tmp_path / "same")
    retrained = tiny_onnx.make(tmp_path / "retrained", wrong=True, manifest={"key": first.key})
    assert (first.key == same.key, first.content == same.content) == (False, True)
    assert (first.key == retrained.key, first.content == retrained.content) == (True, False)


def test_a_folder_that_is_not_sealed_has_the_content_of_its_files(tmp_path: Path) -> None:
    sealed = tiny_onnx.make(tmp_path / "sealed")
    draft = Artifact(sealed.path, sealed.manifest.model_copy(update={"files": {}}))
    assert draft.content == sealed.content
    sealed.model_file.write_bytes(b"other")
    assert draft.content != sealed.content
