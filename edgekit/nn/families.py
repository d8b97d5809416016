"""Where each architecture keeps its heads, FFN, norms and embeddings: data, not classes.

A new encoder family is one `Family` and one line in `FAMILIES`. Paths are dotted attribute names; those of a layer
start at the layer, the others at the backbone (`model.<backbone>`). Several parts may be one matrix: the same path for
query, key and value says that it makes all three, one third of its rows each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from edgekit.errors import ModelError

__all__ = ["FAMILIES", "Family", "family_of"]


@dataclass(frozen=True)
class Family:
    """Attribute paths and config keys of one architecture."""

    backbone: str
    layers: str = "encoder.layer"
    group_layers: str = ""  # ALBERT: `layers` lists groups that are computed many times; the list of layers in each
    patches: str = ""  # of pictures: the convolution that makes a token of each patch
    learned_tokens: int = 0  # of pictures: tokens beside those of the patches; a classifier reads the first
    word_embeddings: str | None = "embeddings.word_embeddings"
    position_embeddings: str | None = "embeddings.position_embeddings"
    type_embeddings: str | None = "embeddings.token_type_embeddings"
    embedding_norm: str | None = "embeddings.LayerNorm"
    attention: str = "attention.self"
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    attention_output: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"  # reads the residual after attention
    ffn_up: str = "intermediate.dense"
    ffn_down: str = "output.dense"
    ffn_norm: str | None = "output.LayerNorm"  # reads the residual after the FFN; None: it is the next layer's
    head_size_attribute: str = "attention_head_size"  # on the attention module
    head_count_attributes: tuple[str, ...] = ("num_attention_heads",)  # likewise
    head_width_attributes: tuple[str, ...] = ("all_head_size",)  # likewise: heads x head size
    position_projections: tuple[str, ...] = ()  # further layers with rows by head, where the config asks for them
    head_bias: bool = False  # one table of relative positions with a column for each head, for all layers
    gated: bool = False  # `ffn_up` makes the neurons' inputs, then as many gates
    first_layer_stays: bool = False  # it has no norm of its own, and the others need theirs
    pretrained_head: str = ""  # prefix of head weights that come from pretraining and fit any labels
    config_layers: str = "num_hidden_layers"
    config_heads: str = "num_attention_heads"
    config_ffn: str = "intermediate_size"
    config_hidden: str = "hidden_size"
    config_widths: tuple[str, ...] = ()  # further keys that hold the hidden size
    position_offset: int = 0  # RoBERTa counts positions from padding_idx + 1

    def widths(self, config: Mapping[str, object]) -> tuple[str, ...]:
        """All keys of a config that follow the hidden size. Tokens that have a key of their own do where they are as
        wide: with another width ELECTRA has a projection, which the model at hand has not."""
        tokens = ("embedding_size",) if config.get("embedding_size") == config.get(self.config_hidden) else ()
        return (self.config_hidden, *self.config_widths, *tokens)

    def after(self, name: str) -> bool:
        """Whether a tensor is of what stands on the encoder: a head, and the pooler it may read."""
        return not name.startswith(f"{self.backbone}.") or ".pooler." in name

    @property
    def pictures(self) -> bool:
        """Whether it reads pictures instead of texts."""
        return bool(self.patches)

    @property
    def fused(self) -> bool:
        """Whether one matrix makes queries, keys and values, in this order."""
        return self.query == self.key == self.value


BERT = Family(backbone="bert")
ROBERTA = Family(backbone="roberta", position_offset=2)
VIT = Family(  # its positions are no module, but a parameter of as many rows as a picture has tokens
    backbone="vit",
    layers="layers",
    patches="embeddings.patch_embeddings.projection",
    learned_tokens=1,
    word_embeddings=None,
    position_embeddings=None,
    type_embeddings=None,
    embedding_norm=None,
    attention="attention",
    query="attention.q_proj",
    key="attention.k_proj",
    value="attention.v_proj",
    attention_output="attention.o_proj",
    attention_norm="layernorm_after",
    ffn_up="mlp.fc1",
    ffn_down="mlp.fc2",
    ffn_norm=None,
    head_size_attribute="head_dim",
    head_width_attributes=(),
)
FAMILIES: dict[str, Family] = {  # by config.json's model_type
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "camembert": ROBERTA,
    "electra": Family(backbone="electra"),
    "albert": Family(
        backbone="albert",
        layers="encoder.albert_layer_groups",
        group_layers="albert_layers",
        attention="attention",
        query="attention.query",
        key="attention.key",
        value="attention.value",
        attention_output="attention.dense",
        attention_norm="attention.LayerNorm",
        ffn_up="ffn",
        ffn_down="ffn_output",
        ffn_norm="full_layer_layer_norm",
    ),
    "deberta-v2": Family(  # and v3
        backbone="deberta",
        query="attention.self.query_proj",
        key="attention.self.key_proj",
        value="attention.self.value_proj",
        position_projections=("attention.self.pos_key_proj", "attention.self.pos_query_proj"),
        config_widths=("pooler_hidden_size",),
    ),
    "modernbert": Family(
        backbone="model",
        layers="layers",
        word_embeddings="embeddings.tok_embeddings",
        position_embeddings=None,
        type_embeddings=None,
        embedding_norm="embeddings.norm",
        attention="attn",
        query="attn.Wqkv",
        key="attn.Wqkv",
        value="attn.Wqkv",
        attention_output="attn.Wo",
        attention_norm="mlp_norm",
        ffn_up="mlp.Wi",
        ffn_down="mlp.Wo",
        ffn_norm=None,
        head_size_attribute="head_dim",
        head_count_attributes=(),
        head_width_attributes=(),
        gated=True,
        first_layer_stays=True,
        pretrained_head="head.",
    ),
    "mpnet": Family(
        backbone="mpnet",
        type_embeddings=None,
        attention="attention.attn",
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        attention_output="attention.attn.o",
        attention_norm="attention.LayerNorm",
        head_bias=True,
        position_offset=2,
    ),
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
    "vit": VIT,
    "deit": replace(VIT, backbone="deit", learned_tokens=2),
}


def family_of(model_type: str) -> Family:
    """The family of a config's `model_type`. Raises ModelError for one that is not known."""
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise ModelError(f"architecture {model_type!r} is not supported", hint=f"supported encoders: {known}")
    return FAMILIES[model_type]
