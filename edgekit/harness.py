"""lm-evaluation-harness on the file that ships: its tasks, answered by any language model's file in its own runtime.

lm_eval is imported at the top because its class is inherited from: import this module inside functions only.
Source: https://github.com/EleutherAI/lm-evaluation-harness (`lm_eval.api.model.TemplateLM`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval import simple_evaluate
from lm_eval.api.model import TemplateLM
from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer

from edgekit.artifact import Artifact
from edgekit.errors import UsageError
from edgekit.interrogate import HERE, Venue, interrogate
from edgekit.runtimes.base import task_of
from edgekit.zero_shot import first_token

__all__ = ["FileModel", "evaluate_tasks"]

ANSWER = 256  # tokens of a free answer, unless the task says


class FileModel(TemplateLM):  # type: ignore[misc]
    """A language model's file as the harness asks for it. Texts longer than the file's window lose their beginning."""

    def __init__(self, artifact: Artifact, venue: Venue = HERE) -> None:
        super().__init__()
        self.artifact, self.venue = artifact, venue
        self.tokenizer = Tokenizer.from_file(str(artifact.path / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.first = first_token(artifact.path, self.tokenizer)
        self.window = task_of(artifact).max_length

    @property
    def eot_token_id(self) -> int:
        """What stands before a text without a context."""
        return self.first

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **ignored: Any) -> list[int]:
        """Token ids; none are added."""
        ids: list[int] = self.tokenizer.encode(string, add_special_tokens=False).ids
        return ids

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **ignored: Any
    ) -> list[tuple[float, bool]]:
        """Of each continuation: its log likelihood (nats) after the context, and whether it is the greedy one."""
        rows = [[*context, *answer][-self.window :] for _, context, answer in requests]
        found, _ = interrogate("score", self.artifact, rows, self.venue)
        told = []
        for (_, _, answer), nll, top1 in zip(requests, found.nll, found.top1, strict=True):
            count = min(len(answer), len(nll))
            told.append((-float(np.sum(nll[-count:])), top1[-count:] == answer[-count:]))
        return told

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log likelihood (nats) of whole texts, each in windows one after the other."""
        texts = [self.tok_encode(request.args[0]) for request in requests]
        step = self.window - 1
        pieces = [[ids[at : at + step] for at in range(0, len(ids), step)] for ids in texts]
        rows = [[self.first, *piece] for parts in pieces for piece in parts]
        found, _ = interrogate("score", self.artifact, rows, self.venue)
        totals = iter(-float(np.sum(nll)) for nll in found.nll)
        return [sum(next(totals) for _ in parts) for parts in pieces]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy answers, up to the first of the texts that end one."""
        told = []
        for request in requests:
            context, options = request.args
            most = int(options.get("max_gen_toks") or ANSWER)
            ids = [self.first, *self.tok_encode(context)][-max(1, self.window - most) :]
            found, _ = interrogate("generate", self.artifact, [ids], self.venue, new_tokens=most)
            text = self.tokenizer.decode(found.tokens[0])
            until = options.get("until") or []
            for end in [until] if isinstance(until, str) else until:
                text = text.split(end)[0]
            told.append(text)
        return told


def evaluate_tasks(
    artifact: Artifact, tasks: Sequence[str], *, limit: int = 0, include: Path | None = None, venue: Venue = HERE
) -> dict[str, dict[str, float]]:
    """Figures by task, as the harness names them. `limit` > 0: the first so many examples of each; `include`: a folder
    with tasks of the user's. Raises UsageError for an unknown task, DeviceError as `interrogate` does."""
    manager = TaskManager(include_path=str(include) if include else None)
    unknown = [name for name in tasks if not manager.match_tasks([name])]
    if unknown:
        raise UsageError(f"the harness has no task {unknown[0]!r}", hint="lm-eval ls tasks shows them all")
    found = simple_evaluate(FileModel(artifact, venue), tasks=list(tasks), limit=limit or None, task_manager=manager)
    return {
        task: {name.removesuffix(",none"): value for name, value in figures.items() if isinstance(value, float)}
        for task, figures in found["results"].items()
    }
