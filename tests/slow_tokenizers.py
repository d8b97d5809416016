"""Tiny random classifiers whose tokenizers are in the files that they have on the hub, without tokenizer.json."""

from __future__ import annotations

import io
import string
from pathlib import Path
from typing import Any

from tests.conftest import WORDS
from tests.tiny_architectures import random_model

__all__ = ["SENTENCEPIECES", "TEXTS", "VOCABULARY", "write_slow"]

CHINESE = ["我的卡在哪里", "钱还没有到账", "请问什么时候可以取款", "转账丢失了 怎么办", "Café 的卡"]
TEXTS = [*(" ".join(WORDS[i:] + WORDS[:i]) for i in range(6)), "Where is  my CARD?", "", "ｃａｒｄ lost…", *CHINESE]
SENTENCEPIECES: dict[str, tuple[str, dict[str, Any]]] = {  # model_type -> its file, how SentencePiece numbers it
    "deberta-v2": (
        "spm.model",
        {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3}
        | {"pad_piece": "[PAD]", "unk_piece": "[UNK]", "bos_piece": "[CLS]", "eos_piece": "[SEP]"},
    ),
    "albert": ("spiece.model", {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "pad_piece": "<pad>"}),
    "xlm-roberta": ("sentencepiece.bpe.model", {}),
}
VOCABULARY = {"bert": "vocab.txt"} | {name: file for name, (file, _) in SENTENCEPIECES.items()}  # by model_type
ROWS = 130  # of the token table: more than any of these tokenizers has tokens


def write_slow(folder: Path, name: str, **sizes: Any) -> Path:
    """A folder with config.json, weights and `VOCABULARY[name]`."""
    folder.mkdir(parents=True, exist_ok=True)
    if name == "bert":
        _bert(sizes).save_pretrained(folder)
        letters = [*string.ascii_lowercase, *string.digits, *dict.fromkeys("".join(CHINESE))]
        tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters, *(f"##{c}" for c in letters[:26])]
        (folder / "vocab.txt").write_text("".join(f"{t}\n" for t in dict.fromkeys(tokens)), encoding="utf-8")
        return folder
    file, settings = SENTENCEPIECES[name]
    if name == "albert":
        settings = settings | {"control_symbols": ["[CLS]", "[SEP]", "[MASK]"]}
    random_model(name, vocabulary=ROWS, pad_token_id=1 if name == "xlm-roberta" else 0, **sizes).save_pretrained(folder)
    (folder / file).write_bytes(_sentencepiece(settings))
    return folder


def _bert(sizes: dict[str, Any]) -> Any:
    import torch
    from transformers import AutoModelForSequenceClassification, BertConfig

    shape: dict[str, Any] = {"hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40}
    shape |= {"num_hidden_layers": sizes.get("layers", 3), "max_position_embeddings": 40, "num_labels": 3}
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(BertConfig(vocab_size=ROWS, **shape)).eval()


def _sentencepiece(settings: dict[str, Any]) -> bytes:
    """A unigram model of `TEXTS`, as bytes."""
    import sentencepiece

    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 4),
        model_writer=made,
        vocab_size=110,
        hard_vocab_limit=False,
        minloglevel=3,
        **settings,
    )
    return made.getvalue()
