"""Where each architecture keeps its heads, FFN, norms and embeddings: data, not classes.

A new encoder family is one `Family` and one line in `FAMILIES`. Paths are dotted attribute names; those of a layer
start at the layer, the others at the backbone (`model.<backbone>`).
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.errors import ModelError

__all__ = ["FAMILIES", "Family", "family_of"]


@dataclass(frozen=True)
class Family:
    """Attribute paths and config keys of one architecture."""

    backbone: str
    layers: str = "encoder.layer"
    word_embeddings: str = "embeddings.word_embeddings"
    position_embeddings: str = "embeddings.position_embeddings"
    type_embeddings: str | None = "embeddings.token_type_embeddings"
    embedding_norm: str = "embeddings.LayerNorm"
    attention: str = "attention.self"
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    attention_output: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    ffn_up: str = "intermediate.dense"
    ffn_down: str = "output.dense"
    ffn_norm: str = "output.LayerNorm"
    head_count_attributes: tuple[str, ...] = ("num_attention_heads",)  # on the attention module
    head_width_attributes: tuple[str, ...] = ("all_head_size",)  # likewise: heads x head size
    config_layers: str = "num_hidden_layers"
    config_heads: str = "num_attention_heads"
    config_ffn: str = "intermediate_size"
    config_hidden: str = "hidden_size"
    position_offset: int = 0  # RoBERTa counts positions from padding_idx + 1


BERT = Family(backbone="bert")
ROBERTA = Family(backbone="roberta", position_offset=2)
FAMILIES: dict[str, Family] = {  # by config.json's model_type
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "camembert": ROBERTA,
    "electra": Family(backbone="electra"),
    "distilbert": Family(
        backbone="distilbert",
        layers="transformer.layer",
        type_embeddings=None,
        attention="attention",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_output="attention.out_lin",
        attention_norm="sa_layer_norm",
        ffn_up="ffn.lin1",
        ffn_down="ffn.lin2",
        ffn_norm="output_layer_norm",
        head_count_attributes=("n_heads",),
        head_width_attributes=("dim",),
        config_layers="n_layers",
        config_heads="n_heads",
        config_ffn="hidden_dim",
        config_hidden="dim",
    ),
}


def family_of(model_type: str) -> Family:
    """The family of a config's `model_type`. Raises ModelError for one that is not known."""
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise ModelError(f"architecture {model_type!r} is not supported", hint=f"supported encoders: {known}")
    return FAMILIES[model_type]
