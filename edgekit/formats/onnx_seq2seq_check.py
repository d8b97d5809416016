"""An exported encoder-decoder model against the original: greedy answers, and logits along the original's answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekit.nn.seq2seq import Greedy, generate

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Compared", "compare_seq2seq"]


@dataclass(frozen=True)
class Compared:
    """`same`: texts that get the same answer, token by token, of `texts`. Along the original's answers (`tokens`):
    mean KL divergence from it (nats a token), largest difference of logits, share of equal likeliest tokens."""

    texts: int
    same: int
    tokens: int
    divergence: float
    max_difference: float
    agreement: float


def compare_seq2seq(
    folder: Path, model: PreTrainedModel, greedy: Greedy, rows: Sequence[list[int]], *, most: int, threads: int = 0
) -> Compared:
    """Answer `rows` of token ids with the files in `folder`, by onnxruntime as its example program does, and with
    `model`; at most `most` tokens each."""
    from edgekit.formats.examples.generate_seq2seq import Generator

    generator = Generator(folder, threads)
    same = 0
    found = []
    for ids in rows:
        theirs = generate(model, greedy, ids, most)
        same += list(generator.tokens(ids, most)) == theirs
        read = [greedy.start, *theirs[:-1]]
        ours = generator.step(read, generator.read(ids), generator.empty())[0]
        found.append(_along(_logits(model, ids, read), ours))
    divergence, difference, agreed = (np.concatenate(part) for part in zip(*found, strict=True))
    return Compared(
        texts=len(rows),
        same=same,
        tokens=len(agreed),
        divergence=float(divergence.mean()),
        max_difference=float(difference.max()),
        agreement=float(agreed.mean()),
    )


def _logits(model: PreTrainedModel, ids: list[int], read: list[int]) -> NDArray[np.float32]:
    """(tokens, vocabulary) of torch, when it reads these tokens of an answer."""
    import torch

    given = torch.tensor([ids])
    with torch.no_grad():
        found = model(input_ids=given, attention_mask=torch.ones_like(given), decoder_input_ids=torch.tensor([read]))
    logits: NDArray[np.float32] = found.logits[0].numpy()
    return logits


def _along(theirs: NDArray[np.float32], ours: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
    """KL divergence, largest difference and agreement, (tokens,) each."""
    known, mine = (_log_softmax(logits.astype(np.float64)) for logits in (theirs, ours))
    divergence = (np.exp(known) * (known - mine)).sum(axis=1)
    return divergence, np.abs(theirs - ours).max(axis=1), theirs.argmax(axis=1) == ours.argmax(axis=1)


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
