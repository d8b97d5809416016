"""What makes an exported language model's folder stand alone: tokenizer, a README and an example without edgekit."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgekit.artifact import Task
from edgekit.formats.package import EXAMPLES
from edgekit.tokenizer_files import tokenizer_files

__all__ = ["write_genai_package", "write_gguf_package"]

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
README = """# A language model {form}

Weights: {weights}. Measured on windows of {length} tokens. Made by edgekit; `manifest.json` says from what, by
which steps, and with which digests. Its figures (perplexity, divergence from the original, speed) stand in the report
of the run that made it.

    pip install {needs}
    python generate.py "Once upon a time"

{programs}

| file | what |
|---|---|
{files}
| `generate.py` | an example program; needs only the package above |
| `manifest.json` | origin: parents, stage, config, library versions, sha256 of every file |
"""
GGUF_FILES = """| `model.gguf` | the model, with its tokenizer{template} |
| `tokenizer.json` | the same tokenizer for the tokenizers library |"""
GENAI_FILES = """| `model.onnx`, `model.onnx.data` | the model and its weights |
| `genai_config.json` | what onnxruntime-genai needs to know to run it: inputs, outputs, context, search |
| `tokenizer.json`, `tokenizer_config.json` | the tokenizer |"""


def write_gguf_package(source: Path, task: Task, out: Path, weights: str, *, chat: bool) -> None:
    """Write README.md and generate.py beside `out/model.gguf`, and copy the tokenizer.

    `weights`: what the file's tensors are, in words. `chat`: whether it holds a chat template.
    """
    for name, content in tokenizer_files(source).items():
        if name in TOKENIZER_FILES:
            (out / name).write_bytes(content)
    shutil.copyfile(EXAMPLES / "generate_gguf.py", out / "generate.py")
    text = README.format(
        form="as one GGUF file",
        weights=weights,
        length=task.max_length,
        needs="llama-cpp-python",
        programs="Any program on llama.cpp reads `model.gguf` too: llama-cli, llama-server, Ollama, LM Studio.",
        files=GGUF_FILES.format(template=" and chat template" if chat else ""),
    )
    (out / "README.md").write_text(text, encoding="utf-8")


def write_genai_package(task: Task, out: Path, weights: str) -> None:
    """Write README.md and generate.py into `out`, which holds the model and its tokenizer already.

    `weights`: what they are, in words.
    """
    shutil.copyfile(EXAMPLES / "generate_genai.py", out / "generate.py")
    text = README.format(
        form="for onnxruntime-genai",
        weights=weights,
        length=task.max_length,
        needs="onnxruntime-genai",
        programs="onnxruntime-genai opens the folder from Python, C, C++, C#, Java and Objective-C.",
        files=GENAI_FILES,
    )
    (out / "README.md").write_text(text, encoding="utf-8")
