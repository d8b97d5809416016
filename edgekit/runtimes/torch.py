"""Eager PyTorch on a Transformers folder: the reference that every export is held against, not a target."""

from __future__ import annotations

from edgekit.runtimes.base import WorkerRuntime

__all__ = ["TORCH"]

TORCH = WorkerRuntime(
    name="torch",
    libraries=("torch", "transformers", "tokenizers"),
    worker="torch_worker.py",
    model="",
    tokenizer="tokenizer.json",
    provider="cpu",
    package=True,
)
