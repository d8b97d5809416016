"""Masked language modeling (Devlin et al., arXiv 1810.04805): rows of tokens, their masks, the encoder they teach."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError, ModelError
from edgekit.model_config import pad_id, read_config
from edgekit.nn.families import family_of
from edgekit.nn.lm_rows import IGNORED
from edgekit.nn.lm_train import evaluating, perplexity
from edgekit.nn.load import check_folder, load_checkpoint
from edgekit.nn.train import Hooks
from edgekit.tokenizer_files import open_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel
    from transformers.utils import ModelOutput

    from edgekit.data.table import Table

__all__ = ["Epochs", "MaskedRows", "evaluator", "load_masked", "masked_loss", "masked_rows", "trained_encoder"]

MASKS = ("[MASK]", "<mask>")
KEPT, RANDOM = 0.1, 0.1  # of the chosen tokens: left as they are, replaced by any; the others become the mask
EXAM = 0  # the epoch whose masks a validation has, always the same


@dataclass(frozen=True)
class MaskedRows:
    """`ids[i]` (length,) int64; `free[i]`: whether a token may be masked (special ones are not). `rate`: the share that
    is; `mask`: the token that stands for it; `vocabulary`: how many tokens there are."""

    ids: tuple[NDArray[np.int64], ...]
    free: tuple[NDArray[np.bool_], ...]
    rate: float
    mask: int
    pad: int
    vocabulary: int
    seed: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(row) for row in self.ids]

    @cached_property
    def weights(self) -> list[int]:
        """Tokens of each row that are to be found: at least one."""
        return [max(1, round(self.rate * int(free.sum()))) for free in self.free]

    @cached_property
    def digest(self) -> str:
        """sha256 of the tokens."""
        sha = hashlib.sha256()
        for ids, free in zip(self.ids, self.free, strict=True):
            sha.update(len(ids).to_bytes(4, "little") + ids.tobytes() + free.tobytes())
        return sha.hexdigest()

    def masked(self, row: int, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What the model reads, and the labels (IGNORED where nothing is asked); a pure function of its arguments, so
        that each epoch has masks of its own and a resumed run the same."""
        rng = np.random.default_rng((self.seed, epoch, row))
        chosen = rng.choice(np.flatnonzero(self.free[row]), self.weights[row], replace=False)
        ids, labels = self.ids[row].copy(), np.full(len(self.ids[row]), IGNORED, dtype=np.int64)
        labels[chosen] = ids[chosen]
        fate = rng.random(len(chosen))
        ids[chosen[fate >= KEPT]] = self.mask
        other = chosen[(fate >= KEPT) & (fate < KEPT + RANDOM)]
        ids[other] = rng.integers(0, self.vocabulary, len(other))
        return ids, labels

    def batch(self, rows: Sequence[int], epoch: int, device: str) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` and `labels`, (rows, longest) int64 each."""
        import torch

        longest = max(len(self.ids[row]) for row in rows)
        ids = np.full((len(rows), longest), self.pad, dtype=np.int64)
        mask, labels = np.zeros_like(ids), np.full_like(ids, IGNORED)
        for place, row in enumerate(rows):
            length = len(self.ids[row])
            ids[place, :length], labels[place, :length] = self.masked(row, epoch)
            mask[place, :length] = 1
        arrays = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}

    def batches(self, size: int) -> list[list[int]]:
        """All rows in batches of like length."""
        order = sorted(range(len(self)), key=lambda row: len(self.ids[row]))
        return [order[start : start + size] for start in range(0, len(order), size)]

    def split(self, every: int) -> tuple[MaskedRows, MaskedRows]:
        """Two parts: all rows but each `every`th, and those."""
        held = [row for row in range(len(self)) if row % every == every - 1]
        kept = [row for row in range(len(self)) if row % every != every - 1]
        return self._take(kept), self._take(held)

    def _take(self, rows: list[int]) -> MaskedRows:
        ids, free = tuple(self.ids[r] for r in rows), tuple(self.free[r] for r in rows)
        return MaskedRows(ids, free, self.rate, self.mask, self.pad, self.vocabulary, self.seed)


def masked_rows(folder: Path, tables: Sequence[Table], length: int, *, rate: float, seed: int) -> MaskedRows:
    """All texts, each in as many rows of at most `length` tokens as it needs, by the folder's `tokenizer.json`.

    Raises DataError where no token is left to mask, ModelError for a tokenizer without a mask token.
    """
    tokenizer = open_tokenizer(folder)
    tokenizer.enable_truncation(length)
    mask = next((i for token in MASKS if (i := tokenizer.token_to_id(token)) is not None), None)
    if mask is None:
        raise ModelError(f"the tokenizer of {folder} has no mask token", hint=f"it must know {' or '.join(MASKS)}")
    texts = [text for table in tables for text in table.all_texts()]
    pieces = [piece for first in tokenizer.encode_batch(texts) for piece in (first, *first.overflowing)]
    found = [(np.asarray(p.ids, dtype=np.int64), np.asarray(p.special_tokens_mask) == 0) for p in pieces]
    found = [(ids, free) for ids, free in found if free.any()]
    if not found:
        raise DataError(f"{' and '.join(table.name for table in tables)}: no token is left to mask")
    config = read_config(folder)
    ids, free = zip(*found, strict=True)
    return MaskedRows(ids, free, rate, mask, pad_id(config), int(str(config["vocab_size"])), seed)


class Epochs(Hooks):
    """Knows which epoch is under way: each has masks of its own."""

    number = EXAM + 1

    def epoch(self, number: int) -> None:
        self.number = EXAM + 1 + number


def evaluator(
    model: PreTrainedModel, rows: MaskedRows, *, batch_size: int, device: str
) -> Callable[[], dict[str, float]]:
    """A function that measures the model as it is then, under the same masks each time: mean loss (nats a masked
    token) in fp32, and its perplexity."""

    def evaluate() -> dict[str, float]:
        total = 0.0
        with evaluating(model):
            for chosen in rows.batches(batch_size):
                found = masked_loss(model, rows.batch(chosen, EXAM, device))
                total += found.double().item() * sum(rows.weights[row] for row in chosen)
        loss = total / sum(rows.weights)
        return {"loss": loss, "perplexity": perplexity(loss)}

    return evaluate


def masked_loss(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean loss (nats) of the tokens that are asked for, as `model(**batch).loss`: but the head, which is as wide as
    the vocabulary, reads those alone (one in seven, where 15% are masked)."""
    asked = batch["labels"] != IGNORED

    def pick(module: torch.nn.Module, inputs: object, output: ModelOutput) -> ModelOutput:
        output["last_hidden_state"] = output["last_hidden_state"][asked][None]
        return output

    hook = model.base_model.register_forward_hook(pick)
    try:
        loss: torch.Tensor = model(**{**batch, "labels": batch["labels"][asked][None]}).loss
    finally:
        hook.remove()
    return loss


def load_masked(folder: Path, *, device: str = "cpu") -> tuple[PreTrainedModel, bool]:
    """A masked language model in float32, and whether its head is new (a folder of a bare encoder has none).

    Raises ModelError for a pickle, weights of the encoder that are missing, or an unsupported architecture. No code of
    the folder is run.
    """
    check_folder(folder)
    backbone = family_of(str(read_config(folder)["model_type"])).backbone
    model, missing = load_checkpoint(
        folder, "fill-mask", may_lack=lambda name: not name.startswith(f"{backbone}."), device=device
    )
    return model, bool(missing)


def trained_encoder(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The encoder inside `model`, with the pooler that the folder it came from has: masks teach none, and a classifier
    stands on it."""
    encoder, missing = load_checkpoint(folder, "feature-extraction", may_lack=lambda name: True)
    if any("pooler" in name for name in missing):
        return cast("PreTrainedModel", model.base_model)
    encoder.load_state_dict(model.base_model.state_dict(), strict=False)
    return encoder
