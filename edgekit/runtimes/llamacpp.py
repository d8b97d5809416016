"""llama.cpp, by llama-cpp-python. A GGUF file carries its own tokenizer."""

from __future__ import annotations

from edgekit.runtimes.base import WorkerRuntime

__all__ = ["LLAMACPP"]

LLAMACPP = WorkerRuntime(
    name="llama.cpp",
    libraries=("llama-cpp-python",),
    worker="llama_worker.py",
    model="model.gguf",
    tokenizer=None,
    provider="cpu",
    install="pip install 'edgekit[gguf]'",
    batches=False,
)
