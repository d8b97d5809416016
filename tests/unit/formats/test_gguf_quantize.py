"""Quantizing GGUF files: types, sizes, what is kept, what falls back, and that nothing reaches the terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

pytest.importorskip("llama_cpp")

from gguf_sample import gguf_logits, hf_ids, labels, table, torch_logits

from edgekit.artifact import Task
from edgekit.errors import StageError, UsageError
from edgekit.formats.gguf_encoder import write_gguf
from edgekit.formats.gguf_quantize import QuantType, quantize_gguf, tensor_types

TASK = Task(labels=labels(3), max_length=32)


@pytest.fixture
def folder(tiny: Callable[..., Path]) -> Path:
    return tiny("bert")


@pytest.fixture
def source(folder: Path, tmp_path: Path) -> Path:
    write_gguf(folder, TASK, tmp_path / "f16.gguf", "f16")
    return tmp_path / "f16.gguf"


@pytest.mark.parametrize("file_type", get_args(QuantType))
def test_every_type_runs_and_says_what_it_holds(source: Path, tmp_path: Path, file_type: QuantType) -> None:
    out = tmp_path / "out.gguf"
    facts = quantize_gguf(source, out, file_type, threads=1)
    held = [kind for kind, _ in tensor_types(out).values()]
    assert facts.tensors == {kind: held.count(kind) for kind in held}
    assert facts.bytes == out.stat().st_size < source.stat().st_size
    assert np.isfinite(gguf_logits(out, TASK, [[2, 7, 8, 3]])).all()


def test_eight_bits_stay_close_and_four_do_not_stay_as_close(source: Path, folder: Path, tmp_path: Path) -> None:
    ids = hf_ids(folder, TASK, table())
    expected = torch_logits(folder, ids)
    errors = {}
    for file_type in ("q8_0", "q4_0"):
        quantize_gguf(source, tmp_path / f"{file_type}.gguf", file_type, embedding_type=file_type, threads=1)
        errors[file_type] = np.abs(gguf_logits(tmp_path / f"{file_type}.gguf", TASK, ids) - expected).mean()
    assert 4 * errors["q8_0"] < errors["q4_0"]


def test_rows_that_do_not_fit_fall_back_and_it_is_told(source: Path, tmp_path: Path) -> None:
    facts = quantize_gguf(source, tmp_path / "out.gguf", "q4_k_m", threads=1)
    assert any("Q4_K -> Q5_0" in note and "rows of 32 are no multiple of 256" in note for note in facts.notes)
    assert "Q4_K" not in facts.tensors


def test_kept_tensors_stay_half_precision(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    facts = quantize_gguf(source, out, "q4_0", keep=("cls", "blk.0.ffn", "typo"), threads=1)
    types = {name: kind for name, (kind, _) in tensor_types(out).items()}
    kept = {"cls.weight", "cls.output.weight", "blk.0.ffn_up.weight", "blk.0.ffn_down.weight", "position_embd.weight"}
    assert {name for name, kind in types.items() if kind == "F16"} == kept
    assert types["blk.1.ffn_up.weight"] == "Q4_0"
    assert any("'typo'" in note for note in facts.notes)
    assert any(note.startswith("kept as F16: ") and "cls.output.weight" in note for note in facts.notes)


@pytest.mark.parametrize(("keep", "wanted", "found"), [((), "q5_0", "Q5_0"), (("token_embd",), "q5_0", "F16")])
def test_the_embeddings_have_a_type_of_their_own(
    source: Path, tmp_path: Path, keep: tuple[str, ...], wanted: str, found: str
) -> None:
    facts = quantize_gguf(source, tmp_path / "out.gguf", "q8_0", keep=keep, embedding_type=wanted, threads=1)
    assert tensor_types(tmp_path / "out.gguf")["token_embd.weight"][0] == found
    assert f"token embeddings are {found}" in facts.notes


@pytest.mark.parametrize(("name", "told"), [("q6_k", "rows of 32"), ("q9_9", "unknown embedding type")])
def test_a_wrong_embedding_type_is_refused_before_llama_aborts(
    source: Path, tmp_path: Path, name: str, told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        quantize_gguf(source, tmp_path / "out.gguf", "q8_0", embedding_type=name)


def test_a_wrong_type_or_source_is_refused_and_leaves_nothing(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="q8_0"):
        quantize_gguf(source, tmp_path / "out.gguf", "q8")  # type: ignore[arg-type]
    quantize_gguf(source, tmp_path / "q4.gguf", "q4_0", threads=1)
    with pytest.raises(StageError, match="could not quantize"):
        quantize_gguf(tmp_path / "q4.gguf", tmp_path / "out.gguf", "q8_0", threads=1)
    (tmp_path / "broken.gguf").write_bytes(source.read_bytes()[:100])
    with pytest.raises(StageError, match="not a GGUF file"):
        quantize_gguf(tmp_path / "broken.gguf", tmp_path / "out.gguf", "q8_0", threads=1)
    assert not (tmp_path / "out.gguf").exists()


def test_nothing_reaches_the_terminal(source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    quantize_gguf(source, tmp_path / "out.gguf", "q4_k_m", threads=1)
    assert capfd.readouterr() == ("", "")
