"""Decoders as GGUF: what stock llama.cpp computes from the file, tensor by tensor and token by token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoder_sample import OPTIONS, SIZES, TEXTS, quantize_with_llama, tensors, write_decoder

from edgekit.errors import ModelError, StageError, UsageError
from edgekit.formats.gguf_decoder import decoder_tensors, obstacles, preset_types, write_gguf_decoder
from edgekit.formats.gguf_decoder_check import Llama, compare, compare_tokens
from edgekit.tasks.language_modeling import Windows

pytest.importorskip("gguf")
pytest.importorskip("llama_cpp")
QUANTIZED = [
    "q8_0",
    "q4_0",
    "q4_1",
    "q5_0",
    "q5_k_s",
    "q6_k",
    "q5_k_m",
    "q4_k_m",
    "q4_k_s",
    "q3_k_l",
    "q3_k_m",
    "q3_k_s",
]
QUANTIZED += ["q2_k", "iq4_nl", "iq4_xs"]
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "wide": ("llama", {"hidden_size": 256, "intermediate_size": 256, "tie_word_embeddings": False}),
    "tied, shared values": ("llama", {"hidden_size": 256, "num_attention_heads": 8, "tie_word_embeddings": True}),
    "fused, no multiple of 256": ("phi3", {"hidden_size": 96, "intermediate_size": 80}),
}


def export(folder: Path, out: Path, preset: str = "f32", **options: Any) -> Path:
    write_gguf_decoder(folder, out, preset_types(folder, preset), preset=preset, threads=2, **options)
    return out


def windows(length: int = 24, count: int = 2) -> Windows:
    ids = np.random.default_rng(0).integers(2, 300, (count, length)).astype(np.int32)
    return Windows(ids, 0)


@pytest.mark.parametrize("kind", sorted(OPTIONS))
def test_logits_equal_torch_for_every_architecture(kind: str, tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "hf", kind)
    found = compare(export(folder, tmp_path / "m.gguf"), folder, windows(), threads=1)
    # llama.cpp looks GELU up in a half-precision table: about 1e-3 of the activations
    limit = 1e-2 if kind in ("gpt2", "gemma2", "gemma3_text") else 1e-4
    assert found.max_difference < limit * max(1.0, found.largest_logit / 10)
    assert found.largest_logit > 1  # the comparison says something
    assert found.agreement > 0.95


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
            "rope_theta": 10000.0,
        },
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 10000.0},
    ],
    ids=lambda rope: str(rope["rope_type"]),
)
def test_rotary_scaling(rope: dict[str, Any], tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "hf", "llama", rope_parameters=rope)
    found = compare(export(folder, tmp_path / "m.gguf"), folder, windows(48), threads=1)
    assert found.max_difference < 2e-3 * found.largest_logit
    assert found.agreement > 0.95


def test_biases_and_untied_embeddings(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "hf", "llama", attention_bias=True, mlp_bias=True, tie_word_embeddings=False)
    file = export(folder, tmp_path / "m.gguf")
    assert compare(file, folder, windows(), threads=1).max_difference < 1e-3
    assert "output.weight" in tensors(file)
    assert "output.weight" not in tensors(
        export(write_decoder(tmp_path / "tied", "llama", tie_word_embeddings=True), tmp_path / "tied.gguf")
    )


def test_greedy_generation_is_that_of_transformers(tmp_path: Path) -> None:
    import torch

    from edgekit.nn.decoders import load_decoder

    folder = write_decoder(tmp_path / "hf", "qwen3")
    prompt = windows(8, 1).ids[0]
    wanted = load_decoder(folder).generate(
        torch.from_numpy(prompt[None].astype(np.int64)), max_new_tokens=12, do_sample=False, eos_token_id=None
    )
    ids = prompt
    with Llama(export(folder, tmp_path / "m.gguf"), 32, 1) as model:
        for _ in range(12):
            ids = np.append(ids, np.int32(model.logits(ids)[-1].argmax()))
    assert ids.tolist() == wanted[0].tolist()


@pytest.fixture(scope="module", params=SHAPES.values(), ids=SHAPES)
def layered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint of eight layers, so that every place among the layers occurs, and its f32 file."""
    folder = tmp_path_factory.mktemp("layered")
    kind, changes = request.param
    write_decoder(folder / "hf", kind, num_hidden_layers=8, **changes)
    return folder / "hf", export(folder / "hf", folder / "f32.gguf")


@pytest.mark.parametrize("preset", QUANTIZED)
def test_types_and_bytes_are_those_of_llama_cpp(preset: str, layered: tuple[Path, Path], tmp_path: Path) -> None:
    folder, full = layered
    quantize_with_llama(full, tmp_path / "peer.gguf", preset)
    _same(export(folder, tmp_path / "m.gguf", preset), tmp_path / "peer.gguf")


@pytest.mark.parametrize("preset", ["q4_0", "q4_k_m", "q2_k_s", "iq4_xs"])
def test_importance_is_used_as_llama_cpp_uses_it(preset: str, tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "hf", "llama", num_hidden_layers=8, hidden_size=256, intermediate_size=256)
    random = np.random.default_rng(0)
    importance = {
        spec.name: random.uniform(0.1, 2.0, spec.shape[1]).astype(np.float32)
        for spec in decoder_tensors(folder)
        if spec.quantizable and spec.name != "token_embd.weight"
    }
    quantize_with_llama(export(folder, tmp_path / "f32.gguf"), tmp_path / "peer.gguf", preset, importance)
    types = preset_types(folder, preset, with_importance=True)
    write_gguf_decoder(folder, tmp_path / "m.gguf", types, importance=importance, preset=preset, threads=2)
    _same(tmp_path / "m.gguf", tmp_path / "peer.gguf")


def _same(ours: Path, peer: Path) -> None:
    mine, theirs = tensors(ours), tensors(peer)
    assert {name: kind for name, (kind, _) in mine.items()} == {name: kind for name, (kind, _) in theirs.items()}
    assert [name for name in mine if mine[name][1].tobytes() != theirs[name][1].tobytes()] == []


def test_shards_give_the_same_file(tmp_path: Path) -> None:
    whole = export(write_decoder(tmp_path / "one", "llama"), tmp_path / "one.gguf", "q8_0")
    folder = write_decoder(tmp_path / "many", "llama", shard="100KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    assert export(folder, tmp_path / "many.gguf", "q8_0").read_bytes() == whole.read_bytes()


def test_a_missing_and_a_truncated_shard_are_named(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "hf", "llama", shard="100KB")
    first, second = sorted(folder.glob("model-*.safetensors"))[:2]
    second.write_bytes(second.read_bytes()[:-10])
    with pytest.raises(ModelError, match=r"truncated.*model\.|model\..*truncated|truncated.*ends at"):
        decoder_tensors(folder)
    first.unlink()
    with pytest.raises(ModelError, match="is missing; it holds"):
        decoder_tensors(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value: float, tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "hf", "llama")
    _change(folder, "model.layers.1.mlp.up_proj.weight", value)
    with pytest.raises(StageError, match=r"layers\.1\.mlp\.up_proj\.weight has NaN or infinite"):
        export(folder, tmp_path / "m.gguf", "q8_0")


def test_a_weight_too_large_for_f16_is_named(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "hf", "llama")
    _change(folder, "model.layers.1.mlp.up_proj.weight", 1e6)
    with pytest.raises(StageError, match="f16 cannot hold"):
        export(folder, tmp_path / "m.gguf", "f16")
    export(folder, tmp_path / "m.gguf", "bf16")


def _change(folder: Path, name: str, value: float) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights[name][3, 5] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_half_precision_checkpoints_are_read_exactly(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = write_decoder(tmp_path / "hf", "llama")
    weights = load_file(folder / "model.safetensors")
    for dtype in (torch.float16, torch.bfloat16):
        halved = {name: tensor.to(dtype) for name, tensor in weights.items()}
        save_file(halved, folder / "model.safetensors", metadata={"format": "pt"})
        written = tensors(export(folder, tmp_path / "m.gguf"))["blk.0.ffn_up.weight"][1]
        assert np.array_equal(written, halved["model.layers.0.mlp.up_proj.weight"].float().numpy())


def test_a_layer_that_config_does_not_know_is_refused(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "hf", "llama")
    _set(folder, num_hidden_layers=2)
    with pytest.raises(ModelError, match=r"layers\.2\..* has no place"):
        decoder_tensors(folder)
    _set(folder, num_hidden_layers=4)
    with pytest.raises(ModelError, match=r"missing, the first is blk\.3"):
        decoder_tensors(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mixtral"}, "mixture of experts"),
        ({"num_local_experts": 8}, "mixture of experts"),
        ({"model_type": "mamba"}, "known: llama"),
        ({"hidden_act": "relu"}, "hidden_act relu"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rotary scaling dynamic"),
        ({"quantization_config": {"bits": 4}}, "quantized already"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "no causal language model"),
    ],
)
def test_obstacles_need_config_json_alone(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **SIZES}), encoding="utf-8")
    assert obstacles(tmp_path) == []
    _set(tmp_path, **change)
    assert any(message in str(problem) for problem in obstacles(tmp_path))


def _set(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def test_unknown_types_and_names_are_refused(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "hf", "llama")
    with pytest.raises(UsageError, match="unknown GGUF type"):
        preset_types(folder, "q9_k")
    with pytest.raises(StageError, match="importance matrix"):
        preset_types(folder, "q2_k_s")
    with pytest.raises(StageError, match="no tensor of this model"):
        write_gguf_decoder(folder, tmp_path / "m.gguf", {"blk.9.ffn_up.weight": "q8_0"})
    with pytest.raises(UsageError, match="no multiple"):
        write_gguf_decoder(folder, tmp_path / "m.gguf", {"blk.0.ffn_up.weight": "q4_k"})


def test_texts_get_the_same_tokens(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "hf", "llama")
    found = compare_tokens(export(folder, tmp_path / "m.gguf"), folder, [*TEXTS, "", " a\n b", "naïve 😀 x=1"])
    assert (found.texts, found.same) == (6, 6)


def test_another_rounding_may_be_given(tmp_path: Path) -> None:
    from edgekit.formats.ggml import quantize

    folder = write_decoder(tmp_path / "hf", "llama")

    def halved(name: str, rows: Any, kind: str) -> Any:
        return quantize(rows / 2 if name == "blk.1.ffn_up.weight" else rows, kind)

    plain = tensors(export(folder, tmp_path / "plain.gguf", "q8_0"))
    other = tensors(export(folder, tmp_path / "other.gguf", "q8_0", encode=halved))
    assert [name for name in plain if plain[name][1].tobytes() != other[name][1].tobytes()] == ["blk.1.ffn_up.weight"]
