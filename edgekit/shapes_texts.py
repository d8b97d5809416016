"""How many tokens a step will read, told from the texts without a tokenizer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from edgekit.artifact import Task
from edgekit.data.table import SplitName, Table
from edgekit.stages.base import Config
from edgekit.tasks.encoders import task_kind

__all__ = ["tokens_learned", "tokens_of"]

PER_WORD = 1.4
SPECIAL = 2  # around a text
CHARACTERS = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")  # each a token of its own
LEARNED: Mapping[str, tuple[SplitName, ...]] = {
    "distill": ("train", "unlabeled"),
    "mlm-pretrain": ("train", "unlabeled"),
}


def tokens_learned(tables: Mapping[SplitName, Table], stage: str, config: Config, task: Task) -> float:
    """Of one pass of a training stage, altered copies among them."""
    copies = int(getattr(config, "altered_copies", 0))
    return tokens_of(tables, LEARNED.get(stage, ("train",)), task) + copies * tokens_of(tables, ("train",), task)


def tokens_of(tables: Mapping[SplitName, Table], names: Iterable[SplitName], task: Task) -> float:
    """Of all rows of the splits; what is cut off a long text is not counted, where it is cut into windows it is."""
    some = [tables[name] for name in names if name in tables]
    if task_kind(task).pictures:
        return float(sum(task.max_length * len(table) for table in some))
    longest = float("inf") if task.kind == "question-answering" else task.max_length
    return sum(min(_tokens(text), longest) for table in some for text in table.all_texts())


def _tokens(text: str) -> float:
    return PER_WORD * len(text.split()) + len(CHARACTERS.findall(text)) + SPECIAL
