"""Several processes that train one model: as `accelerate launch` and `torchrun` start them, on one machine or more.

Every optimizer step's batch is shared out among them and their gradients are added up, so that a recipe means the same
training however many there are. The first process, the main one, is the only one that writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from edgekit.errors import StageError, UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["ALONE", "HelpedError", "Processes", "device_here", "processes", "shard"]

T = TypeVar("T")
PATIENCE = timedelta(days=7)  # the others wait as long as a step of the main process takes


class HelpedError(Exception):
    """Raised in a process that is not the main one where its help ends: nothing that a stage does after its training
    is wanted of it."""


@dataclass(frozen=True)
class Processes:
    """Which of `size` processes this one is; the calls that follow are made by all of them, in the same order.

    Tensors travel by gloo where they lie on the CPU and by NCCL on GPUs. Source: torch.distributed.
    """

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        return self.rank == 0

    def added(self, values: Sequence[float]) -> list[float]:
        """The sum over all processes of each value."""
        if self.size == 1:
            return list(values)
        import torch
        from torch import distributed

        tensor = torch.tensor(values, dtype=torch.float64)
        with _reachable():
            distributed.all_reduce(tensor)
        return [float(value) for value in tensor]

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Put the sum over all processes in each gradient; one that some lack counts as zero there."""
        if self.size == 1:
            return
        import torch
        from torch import distributed

        found = list(parameters)
        some_have = self.added([float(parameter.grad is not None) for parameter in found])
        under_way = []
        with _reachable():
            for parameter, have in zip(found, some_have, strict=True):
                if have:
                    if parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
                    under_way.append(distributed.all_reduce(parameter.grad, async_op=True))
            for work in under_way:
                work.wait()

    def as_main(self, tensors: Iterable[torch.Tensor]) -> None:
        """Overwrite tensors by those of the main process."""
        if self.size == 1:
            return
        from torch import distributed

        with _reachable():
            for tensor in tensors:
                distributed.broadcast(tensor, src=0)

    def figures_of_main(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Figures of these names as the main process has them: decisions that hang on them are then the same."""
        if self.size == 1:
            return dict(figures)
        import torch

        names = sorted(figures)
        tensor = torch.tensor([figures[name] for name in names], dtype=torch.float64)
        self.as_main([tensor])
        return {name: float(value) for name, value in zip(names, tensor, strict=True)}

    def told(self, answer: bool) -> bool:
        """What the main process answers."""
        return bool(self.figures_of_main({"": float(answer)})[""])

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process goes through what is inside before the others, who find what it left on disk."""
        if not self.main:
            self.wait()
        yield
        if self.main:
            self.wait()

    def wait(self) -> None:
        """Until all have come here."""
        self.added([0.0])


ALONE = Processes()


@contextmanager
def _reachable() -> Iterator[None]:
    """Raises StageError where another process ended meanwhile: it says why itself."""
    try:
        yield
    except RuntimeError as error:
        raise StageError(f"a process that trains along has ended ({str(error).splitlines()[0]})") from None


def processes() -> Processes:
    """Those that a launcher started, by its environment variables; joined to the others at the first call.

    Raises UsageError where the variables are incomplete, or the others cannot be reached.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ALONE
    import torch
    from torch import distributed

    if not distributed.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        try:
            distributed.init_process_group(backend, timeout=PATIENCE)
        except (ValueError, RuntimeError) as error:
            what = f"{size} processes were asked for and do not find each other: {str(error).splitlines()[0]}"
            raise UsageError(what, hint="start them by accelerate launch or torchrun, or unset WORLD_SIZE") from None
    return Processes(distributed.get_rank(), size)


def device_here() -> str:
    """The CUDA device of this process: each of one machine has its own."""
    local = os.environ.get("LOCAL_RANK") if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None
    return f"cuda:{local}" if local else "cuda"


def shard(rows: list[T], world: Processes) -> list[T]:
    """This process's share of a batch; empty where there are more processes than rows."""
    return rows[world.rank :: world.size]
