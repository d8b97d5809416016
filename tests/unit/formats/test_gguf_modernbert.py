"""ModernBERT as GGUF: llama.cpp computes torch's answers from what was written, cut models included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llama_cpp")

import llama_cpp
from gguf_sample import SENTENCES, gguf_ids, gguf_logits, hf_ids, labels, table, torch_logits
from numpy.typing import NDArray

from edgekit.artifact import Artifact, Task
from edgekit.data.table import Table
from edgekit.evaluate import predict, predict_torch
from edgekit.formats.gguf_encoder import obstacles, obstacles_of, write_gguf
from edgekit.formats.gguf_quantize import tensor_types
from edgekit.nn.evaluate import logits_of
from edgekit.nn.load import Edits, load_classifier, save_model
from edgekit.sentence_modules import Pooling, write_modules
from edgekit.stages.base import Context
from edgekit.stages.export import Export, draft, export
from edgekit.stages.quantize import Quantize, quantize
from edgekit.tasks.encoders import examples_of
from tests.tiny_architectures import write_architecture

LENGTH = 40  # ten times the tokens that a local layer sees on each side
TASK = Task(labels=labels(3), max_length=LENGTH)
EMBED = Task(kind="sentence-similarity", max_length=LENGTH)
SHARP = {  # bases so small that a wrong one shows within 40 tokens
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 200.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 7.0},
    }
}
CONFIG: dict[str, Any] = {
    "model_type": "modernbert",
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "hidden_size": 32,
    "max_position_embeddings": 40,
}


def modern(folder: Path, pooling: Pooling | None = None, **sizes: Any) -> Path:
    """A random classifier, or an embedder that pools so."""
    write_architecture(folder, "modernbert", **{"layers": 5, "heads": 4, "head_size": 8, "ffn": 48, **SHARP, **sizes})
    if pooling:
        write_modules(folder, pooling, LENGTH)
    return folder


def change(folder: Path, file: str, **values: object) -> None:
    spec = json.loads((folder / file).read_text(encoding="utf-8"))
    (folder / file).write_text(json.dumps(spec | values), encoding="utf-8")


def embeddings(folder: Path, data: Table) -> NDArray[np.float32]:
    model = load_classifier(folder, kind="sentence-similarity")
    return logits_of(model, examples_of(folder, data, EMBED).encoded)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize(("file_type", "limit"), [("f32", 2e-3), ("f16", 5e-3)])
def test_llama_computes_torchs_logits(tmp_path: Path, pooling: str, file_type: Any, limit: float) -> None:
    folder, out = modern(tmp_path, classifier_pooling=pooling), tmp_path / "model.gguf"
    facts = write_gguf(folder, TASK, out, file_type)
    ids = hf_ids(folder, TASK, table())
    assert max(map(len, ids)) == LENGTH
    assert gguf_ids(out, TASK, table()) == ids
    expected = torch_logits(folder, ids)
    assert expected.std(0).min() > 0.02, "texts that all look alike prove nothing"
    assert np.abs(gguf_logits(out, TASK, ids) - expected).max() < limit
    assert ("averages the tokens" in " ".join(facts.notes)) == (pooling == "cls")


@pytest.mark.parametrize(
    "config",
    [
        {"local_attention": 5},
        {"local_attention": 2},
        {"global_attn_every_n_layers": 3},
        {"layer_types": [f"{kind}_attention" for kind in ("full", "full", "sliding", "sliding", "full")]},
        {"layer_types": [f"{kind}_attention" for kind in ("sliding", "sliding", "full", "sliding", "full")]},
        {"layer_types": ["full_attention"] * 5},
        {"hidden_activation": "silu"},
        {"norm_eps": 0.1},
    ],
)
def test_every_layer_attends_as_the_config_says(tmp_path: Path, config: dict[str, Any]) -> None:
    usual, folder = modern(tmp_path / "usual"), modern(tmp_path / "other", **config)
    out = folder / "model.gguf"
    write_gguf(folder, TASK, out, "f32")
    ids = hf_ids(folder, TASK, table())
    expected = torch_logits(folder, ids)
    assert np.abs(torch_logits(usual, ids) - expected).max() > 0.01, "this makes no difference"
    assert np.abs(gguf_logits(out, TASK, ids) - expected).max() < 2e-3


def test_an_older_config_names_period_and_bases_otherwise(tmp_path: Path) -> None:
    folder = modern(tmp_path)
    write_gguf(folder, TASK, tmp_path / "new.gguf", "f16")
    config = json.loads((folder / "config.json").read_text())
    config = {key: value for key, value in config.items() if key not in ("layer_types", "rope_parameters")}
    config |= {"global_attn_every_n_layers": 2, "global_rope_theta": 200.0, "local_rope_theta": 7.0}
    (folder / "config.json").write_text(json.dumps(config))
    write_gguf(folder, TASK, tmp_path / "old.gguf", "f16")
    assert (tmp_path / "new.gguf").read_bytes() == (tmp_path / "old.gguf").read_bytes()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_an_embedder_is_exported_quantized_and_run_by_stock_llama(tmp_path: Path, pooling: Pooling) -> None:
    folder = modern(tmp_path / "model", pooling, head_size=16, ffn=96)
    pairs = Table(SENTENCES[:10], SENTENCES[10:20], name="pairs")
    source, context = Artifact.outside(folder, EMBED), Context({"validation": pairs}, threads=1)
    whole, small = tmp_path / "f16", tmp_path / "q8"
    whole.mkdir()
    small.mkdir()
    made = export(source, Export(format="gguf", precision="f16"), whole, context)
    assert made.facts.numbers["tolerance"] == 1e-3
    quantize(draft(whole, "gguf", EMBED), Quantize(method="q8_0"), small, context)
    assert {kind for kind, shape in tensor_types(small / "model.gguf").values() if len(shape) == 2} == {"Q8_0"}
    exact = predict_torch(source, pairs, threads=1).logits
    rounded = predict(draft(small, "gguf", EMBED), pairs, threads=1, batch=4).logits
    assert (rounded * exact).sum(1).min() > 0.995
    model = llama_cpp.Llama(str(whole / "model.gguf"), embedding=True, n_ctx=64, n_threads=1, verbose=False)
    texts = ("where is my card", "top up the cash rate, please", "My card still has not arrived")
    found = np.array([model.embed(text, normalize=True) for text in texts])
    assert np.abs(found - embeddings(folder, Table(texts))).max() < 1e-3


def test_a_classifier_is_exported_and_answers_in_batches(tmp_path: Path) -> None:
    folder, out = modern(tmp_path / "model"), tmp_path / "out"
    out.mkdir()
    source, data = Artifact.outside(folder, TASK), table()
    made = export(source, Export(format="gguf", precision="f16"), out, Context({"validation": data}, threads=1))
    assert float(made.facts.numbers["max_difference"]) < float(made.facts.numbers["tolerance"])
    expected = predict_torch(source, data, threads=1).logits
    assert np.abs(predict(draft(out, "gguf", TASK), data, threads=1, batch=4).logits - expected).max() < 5e-3


def test_a_cut_model_keeps_which_layers_are_local(tmp_path: Path) -> None:
    import torch

    from edgekit.nn.surgery import drop_layers, resize_ffn, set_low_rank, settle
    from edgekit.nn.vocabulary import load_spec, prune_embedding, tokens_of, write_tokenizer

    source, folder, out = modern(tmp_path / "source"), tmp_path / "cut", tmp_path / "model.gguf"
    model = load_classifier(source)
    drop_layers(model, [0, 1, 3])  # of a global layer after every local one
    for layer in range(3):
        resize_ffn(model, layer, torch.arange(0, 48, 2))
    spec = load_spec(source)
    kept = [i for i in sorted(tokens_of(spec).values()) if i < 285 or i == 300]
    prune_embedding(model, kept)
    for path in ("model.layers.1.attn.Wqkv", "model.layers.2.mlp.Wi"):
        set_low_rank(model, path, 8)
    save_model(model, folder, tokenizer_from=source, edits=settle(model))
    write_tokenizer(spec, kept, folder)
    assert json.loads((folder / "config.json").read_text())["layer_types"] == [
        "full_attention",
        "sliding_attention",
        "sliding_attention",
    ]
    facts = write_gguf(folder, TASK, out, "f16")
    assert len(facts.merged) == 2
    ids = hf_ids(folder, TASK, table())
    assert gguf_ids(out, TASK, table()) == ids
    assert np.abs(gguf_logits(out, TASK, ids) - torch_logits(folder, ids)).max() < 5e-3


def test_its_tokenizer_composes_characters_and_masks_take_a_space(tmp_path: Path) -> None:
    folder, out = modern(tmp_path), tmp_path / "model.gguf"
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    added = [entry | {"lstrip": entry["content"] == "[MASK]"} for entry in added]
    change(folder, "tokenizer.json", normalizer={"type": "NFC"}, added_tokens=added)
    assert obstacles(folder, TASK) == []
    facts = write_gguf(folder, TASK, out, "f16")
    assert "compose characters" in " ".join(facts.notes)
    data = table((*SENTENCES, "my card [MASK] lost", "two  spaces [MASK]"))
    assert gguf_ids(out, TASK, data) == hf_ids(folder, TASK, data)


@pytest.mark.parametrize(
    ("config", "edits", "task", "told"),
    [
        ({}, Edits(heads={1: 3}), TASK, "layers 1 have fewer than 4 heads"),
        ({}, Edits(ffn={1: 32}), TASK, "32, 64"),
        ({}, Edits(), TASK.model_copy(update={"max_length": 41}), "40 positions"),
        ({"hidden_activation": "relu"}, Edits(), EMBED, "hidden_activation: relu"),
        ({"attention_bias": True}, Edits(), EMBED, "attention_bias: biases"),
        ({"mlp_bias": True}, Edits(), EMBED, "mlp_bias"),
        ({"norm_bias": True}, Edits(), EMBED, "norm_bias"),
        ({"classifier_bias": True}, Edits(), TASK, "classifier_bias"),
        ({"classifier_activation": "silu"}, Edits(), TASK, "classifier_activation: silu"),
        ({"layer_types": ["sliding_attention"] * 3}, Edits(), EMBED, "all layers are local"),
        ({"rope_scaling": {"type": "yarn"}}, Edits(), EMBED, "scaled rotations"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, Edits(), EMBED, "scaled rotations"),
    ],
)
def test_each_obstacle_is_told_with_a_way_out(config: dict[str, Any], edits: Edits, task: Task, told: str) -> None:
    found = obstacles_of(CONFIG | config, edits, task)
    assert told in " | ".join(str(problem) for problem in found)
    assert all(problem.hint for problem in found)


def test_an_embedder_has_no_head_in_the_way() -> None:
    config = CONFIG | {"classifier_bias": True, "classifier_activation": "silu"}
    assert obstacles_of(config, Edits(), EMBED) == []
