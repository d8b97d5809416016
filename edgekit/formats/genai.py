"""A decoder as a folder that onnxruntime-genai runs: by its builder, with our grids where the checkpoint has them."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from edgekit.errors import MissingExtraError, Problem, StageError
from edgekit.formats.genai_grids import can_fuse_qkv, put_grids
from edgekit.formats.grid_file import GridFile
from edgekit.model_config import ModelConfig, read_config

__all__ = ["Precision", "obstacles", "write_genai"]

Precision = Literal["fp32", "fp16", "int4", "int8"]
EXTRA = "genai"
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}


def obstacles(config: ModelConfig) -> list[Problem]:
    """What keeps a model of this config.json from onnxruntime-genai: an architecture that its builder does not name, or
    rotary embeddings that it does not read.

    Raises MissingExtraError where onnxruntime-genai is not installed.
    """
    named = config.get("architectures")
    architecture = str(named[0]) if isinstance(named, list) and named else ""
    known = _architectures()
    if architecture in known:
        return _rotations(architecture, config)
    what = f"onnxruntime-genai's builder does not take {architecture or 'a model without architectures'}"
    return [Problem("config.json", what, f"it takes {', '.join(sorted(known))}")]


def write_genai(folder: Path, out: Path, *, precision: Precision = "fp32", accuracy_level: int = 4) -> list[str]:
    """Write model.onnx, model.onnx.data, genai_config.json and the tokenizer into `out` from a Transformers folder.

    Where `folder` holds grids.safetensors, int4 and int8 mean those grids, integer by integer, and what they leave out
    stays float; without, the builder rounds to nearest in blocks of 32. `accuracy_level` of the quantized products:
    4 turns activations to 8 bits (fast, as llama.cpp does), 1 computes in float32. Returns the modules on our grids.

    Raises StageError where the builder fails or a grid does not belong to the weights, MissingExtraError without
    onnxruntime-genai.
    """
    problems = obstacles(read_config(folder))
    if problems:
        raise StageError("onnxruntime-genai cannot express this model", problems=tuple(problems))
    grids = GridFile(folder)
    if precision not in ("int4", "int8") or not grids:
        _build(folder, out, precision, {"accuracy_level": str(accuracy_level)} if "int" in precision else {})
        return []
    with tempfile.TemporaryDirectory(dir=out.parent) as name:
        plain = Path(name)
        _build(folder, plain, "fp32", {} if can_fuse_qkv(grids) else {"fuse_qkv": "false"})
        touched = put_grids(plain / "model.onnx", out / "model.onnx", grids, accuracy_level)
        for path in plain.iterdir():
            if not path.name.startswith("model.onnx"):
                path.replace(out / path.name)
    return touched


def _build(folder: Path, out: Path, precision: Precision, options: dict[str, str]) -> None:
    """Run the builder in a process of its own: it prints, changes the import path and keeps the model in memory."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(folder), "-o", str(out)]
        command += ["-p", precision, "-e", "cpu", "-c", cache]
        if options:
            command += ["--extra_options", *(f"{name}={value}" for name, value in options.items())]
        done = subprocess.run(command, env=os.environ | OFFLINE, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not (out / "model.onnx").is_file():
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise StageError(f"onnxruntime-genai's builder failed: {last}")


def _rotations(architecture: str, config: ModelConfig) -> list[Problem]:
    """As found with onnxruntime-genai 0.18 under Transformers 5.23."""
    if architecture.startswith("Gemma3"):
        what = "onnxruntime-genai's builder does not find Gemma 3's two rotary bases where Transformers 5 keeps them"
        return [Problem("config.json", what, "export it as GGUF")]
    original, most = (config.get(f"{name}max_position_embeddings", 4096) for name in ("original_", ""))
    scaled = any(
        isinstance(v := config.get(k), dict) and "long_factor" in v for k in ("rope_scaling", "rope_parameters")
    )
    if architecture == "Phi3ForCausalLM" and original != most and not scaled:
        what = f"onnxruntime-genai's builder takes it for LongRoPE: {most} positions, {original} of them original"
        return [Problem("config.json", what, f"set original_max_position_embeddings to {most}")]
    return []


def _architectures() -> set[str]:
    """The architectures that the builder's source compares with `config.architectures[0]`."""
    spec = find_spec("onnxruntime_genai")
    if spec is None or spec.origin is None:
        raise MissingExtraError("onnxruntime-genai", EXTRA)
    source = Path(spec.origin).parent / "models" / "builder.py"
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare) and ast.unparse(node.left) == "config.architectures[0]":
            found |= {c.value for c in node.comparators if isinstance(c, ast.Constant) and isinstance(c.value, str)}
    return found
