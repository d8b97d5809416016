"""Small random classifiers of the architectures beyond BERT's closest kin, each with the kind of tokenizer it has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.conftest import PIECES, WORDS, bpe_spec, wordpiece_spec

__all__ = ["ARCHITECTURES", "SIZES", "random_model", "write_architecture"]

SIZES: dict[str, int] = {"heads": 3, "head_size": 8, "ffn": 40, "layers": 3}
TEXTS = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))]
# model_type -> special tokens (padding, unknown, first, last, mask), and what its config needs beside sizes
ARCHITECTURES: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "xlm-roberta": (
        {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"},
        {"type_vocab_size": 1},
    ),
    "albert": (
        {"pad": "<pad>", "unk": "<unk>", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
        {"embedding_size": 12, "num_hidden_groups": 1},
    ),
    "deberta-v2": (
        {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
        {
            "relative_attention": True,
            "position_buckets": 6,
            "max_relative_positions": -1,
            "norm_rel_ebd": "layer_norm",
            "pos_att_type": ["c2p", "p2c"],
            "share_att_key": True,
            "position_biased_input": False,
            "type_vocab_size": 0,
            "pooler_hidden_act": "gelu",
        },
    ),
    "modernbert": (
        {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
        {
            "local_attention": 8,
            "global_attn_every_n_layers": 2,
            **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 2),
        },
    ),
    "mpnet": ({"pad": "<pad>", "unk": "[UNK]", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}, {}),
}
POSITIONS = 40


def random_model(name: str, *, labels: int = 3, vocabulary: int = 60, **sizes: Any) -> Any:
    """A classifier in eval mode with random weights. `sizes`: those of `SIZES`; the rest are keys of the config."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    shape = {**SIZES, **sizes}
    heads, size = shape.pop("heads"), shape.pop("head_size")
    config = AutoConfig.for_model(
        name,
        **{
            "hidden_size": heads * size,
            "num_attention_heads": heads,
            "intermediate_size": shape.pop("ffn"),
            "num_hidden_layers": shape.pop("layers"),
            "max_position_embeddings": POSITIONS,
            "vocab_size": vocabulary,
            "num_labels": labels,
            **ARCHITECTURES[name][1],
            **shape,
        },
    )
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():  # the stock initialization is so small that every logit is the bias
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def write_architecture(folder: Path, name: str, **sizes: Any) -> Path:
    """A folder with a random classifier and its tokenizer."""
    spec, ids = _tokenizer(name)
    tokens = {f"{role}_token_id": ids[token] for role, token in ARCHITECTURES[name][0].items() if role != "unk"}
    random_model(name, vocabulary=max(ids.values()) + 1, **tokens, **sizes).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    return folder


def _tokenizer(name: str) -> tuple[dict[str, Any], dict[str, int]]:
    """`tokenizer.json`, and token -> id. XLM-R counts positions from padding's id, so that comes second."""
    from edgekit.nn.vocabulary import tokens_of

    roles = ARCHITECTURES[name][0]
    if name == "modernbert":
        spec = renamed_bpe_spec(roles)
    elif name == "mpnet":
        spec = renamed_wordpiece_spec(roles)
    else:
        spec = unigram_spec(roles)
    return spec, tokens_of(spec)


def renamed_bpe_spec(roles: dict[str, str]) -> dict[str, Any]:
    """RoBERTa's byte-level BPE with special tokens of other names."""
    text = json.dumps(bpe_spec(TEXTS, size=300))
    for old, role in {"<s>": "cls", "<pad>": "pad", "</s>": "sep", "<unk>": "unk", "<mask>": "mask"}.items():
        text = text.replace(f'"{old}"', f'"{roles[role]}"')
    spec: dict[str, Any] = json.loads(text)
    return spec


def renamed_wordpiece_spec(roles: dict[str, str]) -> dict[str, Any]:
    """BERT's tokenizer with special tokens of other names, in RoBERTa's order."""
    text = json.dumps(wordpiece_spec(WORDS + PIECES))
    for role in ("pad", "unk", "cls", "sep", "mask"):
        text = text.replace(f"[{role.upper()}]", roles[role])
    spec: dict[str, Any] = json.loads(text)
    order = {2: 0, 0: 1, 3: 2, 1: 3}  # [CLS] [PAD] [SEP] [UNK] come first
    renumber = {token: order.get(i, i) for token, i in spec["model"]["vocab"].items()}
    spec["model"]["vocab"] = renumber
    for added in spec["added_tokens"]:
        added["id"] = renumber[added["content"]]
    for token, special in spec["post_processor"]["special_tokens"].items():
        special["ids"] = [renumber[token]]
    return spec


def unigram_spec(roles: dict[str, str]) -> dict[str, Any]:
    """A `tokenizer.json` of a Unigram tokenizer as SentencePiece makes them, trained on `TEXTS`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    first = [roles[role] for role in ("cls", "pad", "sep", "unk")]
    trainer = trainers.UnigramTrainer(
        vocab_size=90, special_tokens=first, unk_token=roles["unk"], initial_alphabet=list("xyz"), show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens([roles["mask"]])
    cls, sep = roles["cls"], roles["sep"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} {sep} $B {sep}",
        special_tokens=[(cls, first.index(cls)), (sep, first.index(sep))],
    )
    spec: dict[str, Any] = json.loads(tokenizer.to_str())
    return spec
