"""A sentence embedder: an encoder whose last states are pooled over a text's tokens, and brought to length 1."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgekit.sentence_modules import Pooling

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["Embedders", "embedder_class", "pooled", "pooling_of", "set_pooling"]


class Embedders:
    """The two ways to an embedder, as Transformers' Auto classes have them for their models."""

    @staticmethod
    def from_pretrained(folder: Path, *, config: PretrainedConfig, **options: Any) -> Any:
        return embedder_class(config).from_pretrained(folder, config=config, **options)

    @staticmethod
    def from_config(config: PretrainedConfig, **options: Any) -> PreTrainedModel:
        return cast("PreTrainedModel", embedder_class(config)._from_config(config, **options))


def embedder_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """The embedder of an architecture: its encoder, under the name that its other models know it by, and no head.

    It is called as they are; its `logits` (batch, hidden) are the embeddings, each of length 1.
    """
    from torch.nn import functional as F
    from transformers import AutoModel
    from transformers.modeling_outputs import SequenceClassifierOutput

    encoder: type[PreTrainedModel] = AutoModel._model_mapping[type(config)]
    shared = encoder.__mro__[1]  # what the architecture's models have in common: loading, saving, attention
    poolless = {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(encoder).parameters else {}

    class Embedder(shared):  # type: ignore[misc, valid-type]
        pooling: Pooling = "mean"

        def __init__(self, config: PretrainedConfig) -> None:
            super().__init__(config)
            setattr(self, self.base_model_prefix, encoder(config, **poolless))
            self.post_init()

        def forward(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
        ) -> SequenceClassifierOutput:
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            states = self.base_model(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state
            return SequenceClassifierOutput(
                logits=F.normalize(pooled(states.float(), attention_mask, self.pooling), dim=-1)
            )

    Embedder.__name__ = encoder.__name__.removesuffix("Model") + "ForSentenceSimilarity"
    return Embedder


def pooled(states: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Of states (batch, length, width) the first, or the mean of those where `mask` (batch, length) is 1:
    (batch, width)."""
    if pooling == "cls":
        return states[:, 0]
    weight = mask.unsqueeze(-1).to(states.dtype)
    return (states * weight).sum(1) / weight.sum(1).clamp(min=1e-9)


def pooling_of(model: PreTrainedModel) -> Pooling | None:
    """How an embedder pools; None for another model."""
    return getattr(model, "pooling", None)


def set_pooling(model: PreTrainedModel, pooling: Pooling | None) -> None:
    """Let an embedder pool so; None for another model."""
    if pooling is not None:
        cast("Any", model).pooling = pooling
