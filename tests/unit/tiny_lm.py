"""A tiny random Llama as three files: a Transformers folder, GGUF, and a folder of onnxruntime-genai's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from edgekit.artifact import Artifact, Facts, Format, Manifest, Task, entries, seal
from edgekit.digest import digest_json
from edgekit.formats.gguf_decoder import decoder_tensors, write_gguf_decoder
from edgekit.tasks.language_modeling import Windows

CONTEXT = 64
TASK = Task(kind="language-modeling", max_length=24)


def write_hf(folder: Path, tokenizer: dict[str, object], vocabulary: int) -> Artifact:
    """The original."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=0,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # the stock initialization answers alike everywhere
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return Artifact.outside(folder, TASK)


def write_gguf(original: Artifact, folder: Path, kind: str = "f32") -> Artifact:
    """The same weights for llama.cpp; the matrices in `kind`."""
    folder.mkdir()
    types = {spec.name: kind for spec in decoder_tensors(original.path) if spec.quantizable}
    write_gguf_decoder(original.path, folder / "model.gguf", types, threads=1)
    return sealed(folder, "gguf")


def write_genai(original: Artifact, folder: Path) -> Artifact:
    """The same weights in float32, by onnxruntime-genai's own builder."""
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-p", "fp32", "-e", "cpu"]
    command += ["-i", str(original.path), "-o", str(folder), "-c", str(folder.parent / "cache")]
    subprocess.run(command, check=True, capture_output=True)
    return sealed(folder, "onnx-genai")


def sealed(folder: Path, file_format: Format) -> Artifact:
    """The folder with a manifest."""
    files = entries(folder)
    manifest = Manifest(
        key=digest_json({name: entry.sha256 for name, entry in files.items()}),
        format=file_format,
        stage="test",
        stage_version=1,
        config={},
        parents={},
        files=files,
        libraries={},
        facts=Facts(summary="made in a test"),
        task=TASK,
    )
    return seal(folder, manifest)


def some_windows(count: int, length: int, vocabulary: int, scored_from: int) -> Windows:
    """Random tokens, the special ones among them."""
    ids = np.random.default_rng(3).integers(0, vocabulary, (count, length), dtype=np.int32)
    return Windows(ids, scored_from)
