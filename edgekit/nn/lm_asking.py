"""Asking a teacher once: its likeliest next tokens, or texts of its own, kept on disk for the next run or student."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import JsonValue

from edgekit.artifact import Frozen
from edgekit.digest import SHORT, digest_json
from edgekit.nn.checkpoint import read_checkpoint, write_checkpoint
from edgekit.nn.device import seeded
from edgekit.nn.lm_losses import top_answers
from edgekit.nn.lm_rows import Rows, one_a_row
from edgekit.nn.lm_teacher import Answers, Kept
from edgekit.nn.lm_vocabulary import Shared
from edgekit.progress import Progress
from edgekit.tasks.chat import Document

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["Asking", "generated", "keep_answers"]

IDS, LOG_P, TEXTS = "ids.npy", "log_p.npy", "texts.safetensors"


@dataclass(frozen=True)
class Asking:
    """How a teacher is asked: what loads it, the key of its artifact, the folder where what it said is kept (None: not
    at all), and rows in a batch."""

    load: Callable[[], PreTrainedModel]
    key: str
    folder: Path | None
    batch_size: int
    device: str
    progress: Progress


class Said(Frozen):
    """What the texts in a file were made from."""

    digest: str


def keep_answers(asking: Asking, rows: Rows, shared: Shared, *, count: int, temperature: float) -> Kept:
    """The teacher's `count` likeliest next tokens at every place, softened by the temperature, for all rows.

    Answers of an earlier run with the same teacher, rows and temperature are taken up. They are written to disk as they
    come and read from there, so that memory holds one batch.
    """
    shape = (sum(rows.lengths), min(count, len(shared.teacher)))
    if asking.folder is None:
        answers = Answers(np.zeros(shape, np.int32), np.zeros(shape, np.float32))
        _ask(asking, rows, shared, answers, temperature)
        return Kept(rows, shared, answers)
    asked: dict[str, JsonValue] = {
        "teacher": asking.key,
        "rows": rows.digest,
        "count": shape[1],
        "temperature": temperature,
    }
    digest = digest_json({**asked, "tokens": shared.teacher.tolist()})
    home = asking.folder / f"answers-{digest[:SHORT]}"
    if not home.is_dir():
        partial = home.with_name(home.name + ".tmp")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        ids = np.lib.format.open_memmap(partial / IDS, "w+", np.int32, shape)
        log_p = np.lib.format.open_memmap(partial / LOG_P, "w+", np.float32, shape)
        _ask(asking, rows, shared, Answers(ids, log_p), temperature)
        ids.flush()
        log_p.flush()
        partial.rename(home)
    ids, log_p = (np.load(home / name, mmap_mode="r", allow_pickle=False) for name in (IDS, LOG_P))
    return Kept(rows, shared, Answers(ids, log_p))


def _ask(asking: Asking, rows: Rows, shared: Shared, answers: Answers, temperature: float) -> None:
    import torch

    model, begins = asking.load(), rows.begins
    with torch.no_grad():
        for chosen in asking.progress.track(rows.batches(asking.batch_size), "the teacher's answers"):
            batch = rows.batch(chosen, asking.device)
            batch.pop("labels")
            batch["input_ids"] = shared.translate(batch["input_ids"])
            logits = shared.of_teacher(model(**batch, use_cache=False).logits)
            ids, log_p = top_answers(logits, answers.ids.shape[1], temperature)
            for place, row in enumerate(chosen):
                length = len(rows.ids[row])
                here = slice(begins[row], begins[row] + length)
                answers.ids[here] = ids[place, :length].cpu().numpy()
                answers.log_p[here] = log_p[place, :length].cpu().numpy()


def generated(asking: Asking, rows: Rows, *, prompt: int, length: int, seed: int) -> Rows:
    """The teacher's continuations, up to `length` tokens in all, of the first `prompt` tokens of each row, drawn from
    its distribution as it is, each until the token that ends a text. Shorter rows are left out.

    Texts of an earlier run with the same teacher, rows and seed are taken up.
    """
    import torch

    asked: dict[str, JsonValue] = {
        "teacher": asking.key,
        "rows": rows.digest,
        "prompt": prompt,
        "length": length,
        "seed": seed,
    }
    digest = digest_json({**asked, "batch_size": asking.batch_size})
    path = asking.folder / f"generated-{digest[:SHORT]}" / TEXTS if asking.folder else None
    found = read_checkpoint(path, Said) if path else None
    if found is None:
        prompts = [ids[:prompt].astype(np.int64) for ids in rows.ids if len(ids) > prompt]
        with seeded(seed, asking.device):
            tensors = _sampled(asking, torch.from_numpy(np.stack(prompts)), length)
        if path is not None:
            write_checkpoint(path, tensors, Said(digest=digest))
    else:
        tensors, _ = found
    texts = zip(tensors["ids"].numpy(), tensors["lengths"].tolist(), strict=True)
    return one_a_row([Document(ids[:end].astype(np.int32), np.ones(end, dtype=bool)) for ids, end in texts])


def _sampled(asking: Asking, prompts: torch.Tensor, length: int) -> dict[str, torch.Tensor]:
    """`ids` (rows, length), and `lengths`: tokens up to and with the one that ends a text."""
    import torch

    model, size = asking.load(), asking.batch_size
    ends = torch.tensor(np.ravel(model.generation_config.eos_token_id or []), dtype=torch.long)
    ids = torch.zeros((len(prompts), length), dtype=torch.long)
    how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_length": length, "pad_token_id": 0}
    for start in asking.progress.track(list(range(0, len(prompts), size)), "the teacher's own texts"):
        some = prompts[start : start + size].to(asking.device)
        made = model.generate(some, attention_mask=torch.ones_like(some), **how).cpu()
        ids[start : start + size, : made.shape[1]] = made
    over = torch.isin(ids, ends) & (torch.arange(length) >= prompts.shape[1])
    return {"ids": ids, "lengths": torch.where(over.any(1), over.int().argmax(1) + 1, length)}
