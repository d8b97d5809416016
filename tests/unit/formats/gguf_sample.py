"""What the GGUF tests share: sentences, and running a GGUF file and its torch origin on them."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import llama_cpp
import llama_worker
import numpy as np
from numpy.typing import NDArray

from edgekit.artifact import Task
from edgekit.data.table import Table
from edgekit.nn.load import load_classifier
from edgekit.tasks.text_classification import encode

SENTENCES = (
    "turn the lights on in the kitchen",
    "My card still has not arrived, what's going on?",
    "Wie spät ist es in München?",
    "café naïve façade résumé",
    "I can't… believe — it's “quoted” text!",
    "東京の天気はどうですか",
    "今天天气怎么样",
    "emoji 😀 party 🎉🎉 time",
    "email me at a.b@c.com or visit http://x.y/z?q=1&r=2",
    "İstanbul'da ışık söndür",
    "ΑΒΓ Σίσυφος, όχι",
    "$5.99 + 10% = €6.59 ~ £5",
    "tab\tand\nnewline\u00a0nbsp\u200bzero width",
    "hello [SEP] world [MASK]",
    "",
    "   ",
    "Việt Nam tiếng Việt",
    "привет мир, ёлка й",
    "العربية مرحبا",
    "a-b_c/d\\e^f`g|h fine<tag>&amp; \x07bell \ufffd",
    "where is the cash i was transferring when i topped up " * 6,
)


def table(texts: tuple[str, ...] = SENTENCES, pairs: tuple[str, ...] | None = None) -> Table:
    return Table(name="sample", texts=texts, labels=None, pairs=pairs)


def labels(count: int) -> tuple[str, ...]:
    return tuple(f"label {i}" for i in range(count))


QUIET = llama_cpp.llama_log_callback(llama_worker.remember)
llama_cpp.llama_log_set(QUIET, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()


def classifier(gguf: Path, task: Task) -> Any:
    return llama_worker.Encoder(str(gguf), 1, task.max_length, 1)


def hf_ids(folder: Path, task: Task, data: Table) -> list[list[int]]:
    return encode(folder, data, task).ids


def gguf_ids(gguf: Path, task: Task, data: Table) -> list[list[int]]:
    model = classifier(gguf, task)
    pairs = data.pairs or (None,) * len(data.texts)
    return [model.encode(a, b, task.max_length) for a, b in zip(data.texts, pairs, strict=True)]


def gguf_logits(gguf: Path, task: Task, rows: list[list[int]]) -> NDArray[np.float32]:
    model = classifier(gguf, task)
    return np.stack([model.infer([ids])[0] for ids in rows])


def torch_logits(folder: Path, rows: list[list[int]]) -> NDArray[np.float32]:
    import torch

    torch.set_num_threads(1)
    model = load_classifier(folder)
    with torch.inference_mode():
        return np.stack([model(torch.tensor([ids])).logits[0].numpy() for ids in rows])
