"""Parameter-efficient training of a decoder through peft: put on, trained, and merged into the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

from edgekit.errors import MissingExtraError, StageError
from edgekit.nn.train import Hooks

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["UNMERGEABLE", "Method", "RankHooks", "adapt", "hooks_of", "merge"]

Method = Literal["full", "lora", "dora", "adalora", "ia3", "prefix", "prompt"]
UNMERGEABLE = {
    "prefix": "prefix tuning puts learned keys and values before the text, which no weight of the model can hold",
    "prompt": "prompt tuning puts learned embeddings before the text, which no weight of the model can hold",
}


def adapt(model: PreTrainedModel, method: Method, *, rank: int, alpha: float, dropout: float, steps: int) -> Any:
    """The model with an adapter on its linear layers (IA3: where the paper has them); only the adapter learns.

    LoRA (Hu et al., arXiv 2106.09685), DoRA (Liu et al., arXiv 2402.09353), AdaLoRA (Zhang et al., arXiv 2303.10512:
    it begins with half as many ranks again, and ends with `rank` on average), IA3 (Liu et al., arXiv 2205.05638).
    `steps`: optimizer steps in all. Raises MissingExtraError without peft, StageError where peft refuses.
    """
    try:
        import peft
    except ImportError:
        raise MissingExtraError("peft", "peft") from None
    shared: dict[str, Any] = {"task_type": "CAUSAL_LM"}
    lora: dict[str, Any] = {**shared, "target_modules": "all-linear", "lora_alpha": alpha, "lora_dropout": dropout}
    try:
        if method == "ia3":
            config: Any = peft.IA3Config(**shared)
        elif method == "adalora":
            ends: dict[str, Any] = {
                "tinit": steps // 10,
                "tfinal": steps // 4,
                "deltaT": max(1, steps // 100),
                "total_step": steps,
            }
            config = peft.AdaLoraConfig(**lora, init_r=rank + rank // 2, target_r=rank, **ends)
        else:
            config = peft.LoraConfig(**lora, r=rank, use_dora=method == "dora")
        return peft.get_peft_model(model, config)
    except ValueError as error:
        raise StageError(f"{method} does not fit this model: {error}") from None


def hooks_of(model: Any, method: Method) -> Hooks:
    """What the method does beside the optimizer."""
    return RankHooks(model) if method == "adalora" else Hooks()


def merge(model: Any, method: Method) -> PreTrainedModel:
    """The plain model, with the adapter in its weights."""
    return cast("PreTrainedModel", model if method == "full" else model.merge_and_unload())


class RankHooks(Hooks):
    """AdaLoRA's moving of ranks between matrices, and what it must remember for it."""

    def __init__(self, model: Any) -> None:
        self.model = model.base_model
        self.allocator = self.model.rankallocator

    def step(self, number: int) -> None:
        self.model.update_and_allocate(number)

    def state(self) -> dict[str, torch.Tensor]:
        import torch

        kept = {f"{kind}/{n}": t for kind in self._kinds() for n, t in getattr(self.allocator, kind).items()}
        pattern = self.allocator.peft_config.rank_pattern or {}
        return kept | {f"pattern/{name}": torch.tensor(mask) for name, mask in pattern.items()}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        for kind in self._kinds():
            setattr(self.allocator, kind, {n: t.to(self.model.device) for n, t in _part(tensors, kind).items()})
        pattern = {name: mask.tolist() for name, mask in _part(tensors, "pattern").items()}
        self.allocator.peft_config.rank_pattern = pattern or None

    @staticmethod
    def _kinds() -> tuple[str, ...]:
        return ("ipt", "exp_avg_ipt", "exp_avg_unc")


def _part(tensors: dict[str, torch.Tensor], kind: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(f"{kind}/"): t for name, t in tensors.items() if name.startswith(f"{kind}/")}
