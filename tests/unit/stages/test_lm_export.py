from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.artifact import Artifact, Task
from edgekit.data.table import Table
from edgekit.errors import ParityError, StageError, UsageError
from edgekit.formats import gguf_decoder
from edgekit.formats.gguf_decoder import read_plan
from edgekit.stages.base import Context, Outcome
from edgekit.stages.lm_export import LmExport, lm_export
from edgekit.stages.lm_quantize import LmQuantize, lm_quantize

pytest.importorskip("gguf")
pytest.importorskip("llama_cpp")
TASK = Task(kind="language-modeling", max_length=24)
TEXTS = tuple(f"Once upon a time there were {n} girls, and it's said that they'd played outside." for n in range(40))
CONTEXT = Context(data={"validation": Table(TEXTS), "train": Table(TEXTS)}, threads=1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A small random Llama with a tokenizer trained on TEXTS."""
    import json

    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("llama")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    options: dict[str, Any] = {"special_tokens": ["<s>", "</s>"], "initial_alphabet": alphabet, "show_progress": False}
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=300, **options))
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=300,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return Artifact.outside(folder, TASK)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0"])
def test_the_file_is_compared_with_torch_before_it_counts(kind: Any, source: Artifact, out: Path) -> None:
    outcome = lm_export(source, LmExport(type=kind, check_windows=3), out, CONTEXT)
    numbers = outcome.facts.numbers
    assert outcome.format == "gguf"
    assert float(numbers["kl_divergence"]) < 1e-2
    assert numbers["tokens"] == 3 * 12
    assert numbers["texts_with_the_same_tokens"] == numbers["texts"] == 40
    assert numbers["bytes"] == (out / "model.gguf").stat().st_size


def test_the_folder_stands_alone(source: Artifact, out: Path) -> None:
    lm_export(source, LmExport(type="q8_0"), out, CONTEXT)
    assert {path.name for path in out.iterdir()} == {
        "model.gguf",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
        "generate.py",
    }
    command = [sys.executable, "-I", str(out / "generate.py"), "Once upon", "--tokens", "5", "--threads", "1"]
    answer = subprocess.run(command, capture_output=True, check=True, timeout=120).stdout.decode("utf-8", "replace")
    assert answer.startswith("Once upon")
    assert len(answer.strip()) > len("Once upon")
    refused = subprocess.run([*command, "--chat"], capture_output=True, timeout=120, check=False)
    assert b"no chat template" in refused.stderr


def test_importance_changes_the_file_and_lowers_the_divergence_of_its_tensors(source: Artifact, tmp_path: Path) -> None:
    files = []
    for importance in (False, True):
        folder = tmp_path / str(importance)
        folder.mkdir()
        config = LmExport(type="q4_0", importance=importance, samples=8, check_windows=2, max_divergence=5.0)
        outcome = lm_export(source, config, folder, CONTEXT)
        assert outcome.facts.numbers["importance"] is importance
        files.append((folder / "model.gguf").read_bytes())
    assert files[0] != files[1]
    assert len(files[0]) == len(files[1])


def test_a_budget_is_kept_and_beats_the_preset_of_its_size(source: Artifact, tmp_path: Path) -> None:
    found = {}
    for name, config in {
        "preset": LmExport(type="q4_0", importance=True, check_windows=16),
        "feedback": LmExport(type="q4_0", rounding="feedback", check_windows=16),
        "budget": LmExport(budget="q4_0", check_windows=16),
        "bytes": LmExport(budget="80kB", check_windows=16),
    }.items():
        (tmp_path / name).mkdir()
        found[name] = lm_export(source, config, tmp_path / name, CONTEXT).facts.numbers
    assert int(found["budget"]["bytes"]) <= int(found["preset"]["bytes"])
    assert int(found["bytes"]["bytes"]) <= 80_000
    preset, feedback, budget = (float(found[name]["kl_divergence"]) for name in ("preset", "feedback", "budget"))
    assert budget < feedback < preset


@pytest.mark.parametrize("budget", ["ten", "1kB"])
def test_a_budget_that_cannot_be_kept_is_refused(budget: str, source: Artifact, out: Path) -> None:
    with pytest.raises(UsageError, match=r"is no size|smallest types"):
        lm_export(source, LmExport(budget=budget), out, CONTEXT)


def test_a_file_that_disagrees_with_torch_does_not_count(source: Artifact, out: Path) -> None:
    with pytest.raises(ParityError, match="disagrees with torch"):
        lm_export(source, LmExport(type="q4_0", max_divergence=1e-6), out, CONTEXT)


def test_other_tokens_do_not_count(source: Artifact, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real mismatch: the file is written without half of the tokenizer's merges."""
    true_read: Callable[..., Any] = gguf_decoder.read_decoder_vocabulary

    def wrong(folder: Path, rows: int) -> Any:
        vocabulary = true_read(folder, rows)
        return replace(vocabulary, merges=vocabulary.merges[::2])

    monkeypatch.setattr(gguf_decoder, "read_decoder_vocabulary", wrong)
    with pytest.raises(ParityError, match=r"into other tokens; the first is .Once upon a time"):
        lm_export(source, LmExport(type="q8_0"), out, CONTEXT)


def test_wrong_weights_do_not_count(source: Artifact, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real mismatch: the rows of queries and keys are left in Transformers' order."""
    true_plan: Callable[..., Any] = gguf_decoder.plan_tensors

    def wrong(*arguments: Any) -> Any:
        return [replace(tensor, order=None) for tensor in true_plan(*arguments)]

    monkeypatch.setattr(gguf_decoder, "plan_tensors", wrong)
    with pytest.raises(ParityError, match="disagrees with torch"):
        lm_export(source, LmExport(type="f32"), out, CONTEXT)


@pytest.fixture(scope="module")
def genai(source: Artifact, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    """The model for onnxruntime-genai, with options that only GGUF has."""
    pytest.importorskip("onnxruntime_genai")
    folder = tmp_path_factory.mktemp("genai")
    config = LmExport(format="onnx-genai", precision="fp32", check_windows=2, importance=True, budget="80kB")
    return lm_export(source, config, folder, CONTEXT), folder


def test_onnxruntime_genai_is_compared_too(genai: tuple[Outcome, Path]) -> None:
    outcome, folder = genai
    assert outcome.format == "onnx-genai"
    assert (folder / "model.onnx").is_file()
    assert outcome.facts.numbers["tokens"] == 24
    assert float(outcome.facts.numbers["kl_divergence"]) < 1e-5


def test_the_folder_for_onnxruntime_genai_stands_alone(genai: tuple[Outcome, Path]) -> None:
    _, folder = genai
    named = re.findall(r"`([\w.]+)`", (folder / "README.md").read_text(encoding="utf-8"))
    assert {"generate.py", "model.onnx.data", "genai_config.json", "tokenizer_config.json"} <= set(named)
    assert {name for name in named if not (folder / name).is_file()} == {"manifest.json"}  # the store writes it
    command = [sys.executable, "-I", str(folder / "generate.py"), "Once upon", "--tokens", "5", "--threads", "1"]
    answer = subprocess.run(command, capture_output=True, check=True, timeout=120).stdout.decode("utf-8", "replace")
    assert answer.startswith("Once upon")
    assert len(answer.strip()) > len("Once upon")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"type": "f32", "importance": True, "samples": 8}, ("no effect with GGUF type f32: importance, samples",)),
        ({"type": "q8_0", "precision": "int8"}, ("no effect with GGUF type q8_0: precision",)),
        ({"type": "q8_0", "importance": True, "samples": 8}, ()),
        ({"type": "q8_0", "budget": "130kB", "importance": True}, ("no effect with a budget: type",)),
    ],
)
def test_options_without_effect_are_named(
    options: dict[str, Any], told: tuple[str, ...], source: Artifact, out: Path
) -> None:
    assert lm_export(source, LmExport(check_windows=2, **options), out, CONTEXT).facts.warnings == told


def test_options_that_onnxruntime_genai_has_no_use_for_are_named(genai: tuple[Outcome, Path]) -> None:
    assert genai[0].facts.warnings == ("no effect with onnx-genai: budget, importance",)


@pytest.fixture(scope="module")
def on_grids(source: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Artifact]:
    def make(**options: Any) -> Artifact:
        folder = tmp_path_factory.mktemp("grids")
        lm_quantize(source, LmQuantize(windows=8, **options), folder, CONTEXT)
        return Artifact.outside(folder, TASK)

    return make


@pytest.mark.parametrize(
    ("options", "kinds"),
    [({}, {"F32", "Q4_0", "Q8_0"}), ({"symmetric": False, "exclude": ("v_proj",)}, {"F32", "F16", "Q4_1", "Q8_0"})],
)
def test_integers_that_were_found_already_are_carried_over(
    options: dict[str, Any], kinds: set[str], on_grids: Callable[..., Artifact], out: Path
) -> None:
    import gguf

    source = on_grids(**options)
    outcome = lm_export(source, LmExport(type="grids"), out, CONTEXT)
    assert outcome.facts.warnings == ()
    assert float(outcome.facts.numbers["kl_divergence"]) < 1e-3
    held = {tensor.name: tensor for tensor in gguf.GGUFReader(out / "model.gguf").tensors}
    assert {tensor.tensor_type.name for tensor in held.values()} == kinds
    for wanted in read_plan(source.path):
        tensor = held[wanted.name]
        found = gguf.dequantize(tensor.data, tensor.tensor_type)
        values = wanted.read(0, wanted.rows).reshape(found.shape)
        np.testing.assert_array_equal(found, values.astype(np.float16) if tensor.tensor_type == 1 else values)


def test_rounding_what_lies_on_grids_again_is_told(on_grids: Callable[..., Artifact], out: Path) -> None:
    outcome = lm_export(on_grids(), LmExport(type="q4_1"), out, CONTEXT)
    assert any("q4_1 rounds what lm-quantize has rounded already" in text for text in outcome.facts.warnings)


def test_integers_that_nobody_found_cannot_be_carried_over(source: Artifact, out: Path) -> None:
    with pytest.raises(StageError, match=r"has no grids\.safetensors"):
        lm_export(source, LmExport(type="grids"), out, CONTEXT)


def test_what_cannot_be_exported_is_refused(source: Artifact, out: Path) -> None:
    classifier = Artifact.outside(source.path, Task(labels=("a", "b"), max_length=16))
    with pytest.raises(StageError, match="for language models"):
        lm_export(classifier, LmExport(), out, CONTEXT)
    with pytest.raises(StageError, match="needs real text"):
        lm_export(source, LmExport(), out, Context(threads=1))
