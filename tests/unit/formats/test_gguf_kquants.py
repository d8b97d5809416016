"""Types and rounding planned for whole decoders, written to files that stock llama.cpp runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

pytest.importorskip("llama_cpp")

from edgekit.errors import UsageError
from edgekit.formats.ggml import row_bytes
from edgekit.formats.gguf_decoder import decoder_tensors, preset_types, write_gguf_decoder
from edgekit.formats.gguf_decoder_check import compare
from edgekit.formats.gguf_kquants import plan_rounding
from edgekit.tasks.language_modeling import Windows

TEXT = "the cat sat on a mat and the dog ran to the house of cards while it rained all day long"
SIZES: dict[str, dict[str, object]] = {
    "llama": {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2},
    "qwen2": {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2},
    "gpt2": {"n_embd": 64, "n_inner": 128, "n_head": 4},
}


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path, make_bpe: Callable[..., dict[str, object]]) -> Path:
    """A random decoder with a tokenizer of its own."""
    family, tied = request.param
    path: Path = tmp_path / str(family)
    spec = make_bpe([TEXT] * 3)
    vocabulary = len(spec["model"]["vocab"]) + 8  # type: ignore[index]  # added tokens come after these
    sizes: dict[str, object] = {
        "num_hidden_layers": 2,
        "n_layer": 2,
        "vocab_size": vocabulary,
        "max_position_embeddings": 64,
    }
    sizes |= {"bos_token_id": 0, "eos_token_id": 2, "tie_word_embeddings": tied, **SIZES[family]}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter) * (0.1 if "norm" in name or "ln" in name else 0.05))
    model.save_pretrained(path)
    (path / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    return path


def some_windows(folder: Path, count: int, seed: int) -> Windows:
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    ids = np.random.default_rng(seed).integers(0, vocabulary, (count, 32), dtype=np.int32)
    return Windows(ids, 16)


@pytest.mark.parametrize("folder", [("llama", True), ("qwen2", False), ("gpt2", True)], indirect=True)
def test_a_file_of_the_same_size_diverges_less(folder: Path, tmp_path: Path) -> None:
    specs = {spec.name: spec.shape for spec in decoder_tensors(folder) if spec.quantizable}
    peer = preset_types(folder, "q4_0")
    budget = sum(specs[name][0] * row_bytes(kind, specs[name][1]) for name, kind in peer.items())
    found = plan_rounding(folder, some_windows(folder, 16, 0), budget=budget)
    assert found.types.keys() == specs.keys()
    write_gguf_decoder(folder, tmp_path / "peer.gguf", peer, threads=1)
    written = write_gguf_decoder(folder, tmp_path / "ours.gguf", found.types, encode=found.encode, threads=2)
    assert written.bytes <= (tmp_path / "peer.gguf").stat().st_size
    unseen = some_windows(folder, 4, 1)
    ours, theirs = (compare(tmp_path / f"{name}.gguf", folder, unseen, threads=1) for name in ("ours", "peer"))
    assert ours.divergence < 0.8 * theirs.divergence


@pytest.mark.parametrize("folder", [("llama", True)], indirect=True)
def test_given_types_stay_and_a_budget_that_is_too_small_is_refused(folder: Path) -> None:
    types = preset_types(folder, "q2_k")
    assert plan_rounding(folder, some_windows(folder, 4, 0), types=types).types == types
    with pytest.raises(UsageError, match="the smallest types take"):
        plan_rounding(folder, some_windows(folder, 4, 0), budget=1000)
