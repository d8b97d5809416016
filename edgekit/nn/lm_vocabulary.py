"""Which token of a teacher is which token of its student."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import StageError
from edgekit.tokenizer_files import open_tokenizer

if TYPE_CHECKING:
    import torch

__all__ = ["Shared", "shared_vocabulary"]


@dataclass(frozen=True)
class Shared:
    """Token `student[i]` is the teacher's token `teacher[i]`, (tokens,) int64 each; `same`: their outputs are alike as
    they stand."""

    student: NDArray[np.int64]
    teacher: NDArray[np.int64]
    same: bool

    def translate(self, ids: torch.Tensor) -> torch.Tensor:
        """The student's token ids as the teacher's."""
        import torch

        if self.same:
            return ids
        table = torch.zeros(int(self.student.max()) + 1, dtype=torch.long)
        table[torch.from_numpy(self.student)] = torch.from_numpy(self.teacher)
        return table.to(ids.device)[ids]

    def of_student(self, logits: torch.Tensor) -> torch.Tensor:
        """The student's logits (..., vocabulary) of the tokens that both have, (..., tokens)."""
        return self._chosen(logits, self.student)

    def of_teacher(self, logits: torch.Tensor) -> torch.Tensor:
        """The teacher's logits of the same tokens, in the same order."""
        return self._chosen(logits, self.teacher)

    def _chosen(self, logits: torch.Tensor, tokens: NDArray[np.int64]) -> torch.Tensor:
        import torch

        return logits if self.same else logits[..., torch.from_numpy(tokens).to(logits.device)]


def shared_vocabulary(student: Path, teacher: Path) -> Shared:
    """The tokens of a student whose vocabulary is the teacher's, or a part of it.

    Raises StageError where the student has tokens that the teacher has not: there, no answer could be compared.
    """
    ours, theirs = _tokens(student), _tokens(teacher)
    strange = sorted(ours.keys() - theirs.keys(), key=ours.__getitem__)
    if strange:
        raise StageError(
            f"{len(strange)} of the student's {len(ours)} tokens are not the teacher's, the first is {strange[0]!r}",
            hint="a student learns from a teacher with the same tokenizer; its vocabulary may be a pruned part of it",
        )
    tokens = sorted(ours, key=ours.__getitem__)
    pairs = np.asarray([(ours[token], theirs[token]) for token in tokens], dtype=np.int64)
    same = ours == theirs and _outputs(student) == _outputs(teacher)
    return Shared(pairs[:, 0], pairs[:, 1], same)


def _outputs(folder: Path) -> int:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return int(config.get_text_config().vocab_size)


def _tokens(folder: Path) -> dict[str, int]:
    found: dict[str, int] = open_tokenizer(folder).get_vocab(with_added_tokens=True)
    return found
