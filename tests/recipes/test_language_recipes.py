"""The recipes for language models, run on a tiny Llama with a tokenizer of its own."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

from edgekit.api import plan, run, run_stage
from edgekit.artifact import Artifact
from edgekit.errors import PlanError, UsageError
from edgekit.library import find_recipe
from edgekit.report.markdown import render_markdown
from edgekit.report.schema import Report
from edgekit.stages import STAGES

WORDS = "the card was lost in town and my money is still waiting for you to send a new one before next week"
RECIPES = ("llm-quantize", "llm-finetune-quantize", "llm-prune-distill-quantize", "llm-distill-to-smaller")
QUICK = "workload: {batch: 1, rounds: 2, budget: 0, items: 4, seconds: 0.02, warmup: 2, length: 16, windows: 8}"


def write_text(path: Path, words: int, seed: int) -> str:
    """A text in which some words often follow others, so that there is something to learn."""
    rng, choices = np.random.default_rng(seed), WORDS.split()
    at, found = 0, []
    for number in range(words):
        at = (at + int(rng.choice([1, 2, 5], p=[0.8, 0.15, 0.05]))) % len(choices)
        found.append(choices[at] + (".\n" if number % 12 == 11 else ""))
    path.write_text(" ".join(found), encoding="utf-8")
    return str(path)


def write_model(folder: Path, text: str) -> str:
    """A Llama of two layers, widths of 64 and 128, and a byte-level BPE tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train([text], trainer)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    known = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(known), encoding="utf-8")
    return str(folder)


class Bench:
    """A folder with texts, a model and a store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        sizes = {"train": 4000, "validation": 1200, "test": 1200}
        self.texts = {n: write_text(folder / f"{n}.txt", s, i) for i, (n, s) in enumerate(sizes.items())}
        self.model = write_model(folder / "model", self.texts["train"])

    def params(self, name: str) -> dict[str, str]:
        shared = {"model": self.model, "max_length": "32", "test": self.texts["test"]}
        if name == "llm-quantize":
            return {**shared, "text": self.texts["train"]}
        return {**shared, "train": self.texts["train"], "validation": self.texts["validation"]}

    def recipe(self, name: str) -> str:
        text = find_recipe(name).read_text(encoding="utf-8")
        line = re.compile(r"^workload: .*$", re.MULTILINE)
        assert line.search(text)
        quick = self.folder / f"{name}.yaml"
        quick.write_text(line.sub(QUICK, text), encoding="utf-8")
        return str(quick)

    def run(self, name: str, *overrides: str) -> Report:
        out, store = self.folder / name, self.folder / "store"
        params = self.params(name)
        return run(self.recipe(name), params, out, overrides=overrides, store=store, device="cpu", threads=1)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("language"))


def check_files(bench: Bench, name: str, report: Report, ids: list[str]) -> None:
    assert [deployable.id for deployable in report.deployables] == ids
    for deployable in report.deployables:
        assert Artifact.open(bench.folder / name / deployable.path).damage() == []
        assert {"accuracy", "perplexity", "kld", "agreement"} <= deployable.metrics.keys()
        assert deployable.speed is not None
        assert deployable.speed.decode_per_second.value > 0
        assert deployable.speedup is not None
    assert report.gate is not None
    assert "Perplexity" in render_markdown(report)


def test_quantizing_ships_gguf_and_int4(bench: Bench) -> None:
    if importlib.util.find_spec("onnxruntime_genai") is None:
        pytest.skip("onnxruntime-genai is not installed (pip install 'edgekit[genai]')")
    report = bench.run("llm-quantize")
    check_files(bench, "llm-quantize", report, ["gguf-small", "gguf-q8", "gguf-int4", "genai-int4"])
    kld = {deployable.id: deployable.metrics["kld"] or 0.0 for deployable in report.deployables}
    assert 0 < kld["gguf-q8"] < kld["gguf-small"] < 0.2
    assert kld["genai-int4"] < 0.2
    assert kld["gguf-int4"] == pytest.approx(kld["genai-int4"], rel=0.15)  # the same integers in both
    again = bench.run("llm-quantize")
    assert all(step.cached for step in again.steps)


def test_fine_tuning_learns_the_text(bench: Bench) -> None:
    quick = ("finetune.learning_rate=0.003", "finetune.epochs=3")
    params = {**bench.params("llm-finetune-quantize"), "method": "full"}
    out, store = bench.folder / "llm-finetune-quantize", bench.folder / "store"
    recipe = bench.recipe("llm-finetune-quantize")
    report = run(recipe, params, out, overrides=quick, store=store, device="cpu", threads=1)
    check_files(bench, "llm-finetune-quantize", report, ["gguf-small", "gguf-q8"])
    assert report.baseline is not None
    assert (report.baseline.metrics["perplexity"] or 1e9) < 20  # of 320 tokens; untrained it is about 320


def test_pruning_and_distilling_ship_something_smaller(bench: Bench) -> None:
    report = bench.run("llm-prune-distill-quantize", "distill.epochs=1", "prune.samples=16")
    check_files(bench, "llm-prune-distill-quantize", report, ["gguf-small", "gguf-q8"])
    sizes = {step.id: step.size_bytes for step in report.steps}
    assert sizes["distill"] < 0.9 * Path(bench.model, "model.safetensors").stat().st_size


def test_a_student_of_a_shape_is_distilled(bench: Bench) -> None:
    report = bench.run("llm-distill-to-smaller", "distill.epochs=1", "student.samples=16")
    check_files(bench, "llm-distill-to-smaller", report, ["gguf-small", "gguf-f16"])


def test_a_stage_for_classifiers_is_refused_with_the_right_one(bench: Bench) -> None:
    with pytest.raises(UsageError, match="prune is for text-classification") as refused:
        run_stage("prune", STAGES["prune"].config()(), bench.model, bench.folder / "no", store=bench.folder / "store")
    assert "lm-prune" in (refused.value.hint or "")


def test_a_recipe_for_classifiers_is_refused_before_it_runs(bench: Bench) -> None:
    text = find_recipe("llm-quantize").read_text(encoding="utf-8").replace("stage: lm-export", "stage: export", 1)
    mine = bench.folder / "mixed.yaml"
    mine.write_text(text.replace("config: {format: gguf, type: f16}", "config: {format: gguf, precision: f16}"))
    with pytest.raises(PlanError) as refused:
        plan(str(mine), bench.params("llm-quantize"), store=bench.folder / "store")
    assert any("use lm-export" in str(problem) for problem in refused.value.problems)
