"""Tiny random classifiers of each family, with a tokenizer, as folders; made in the test, nothing is downloaded."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from pathlib import Path

import pytest

WORDS = ["card", "transfer", "money", "lost", "my", "is", "the", "where", "when", "please", "not", "still"]
WORDS += ["arrived", "waiting", "top", "up", "cash", "rate"]
PIECES = ["##s", "##ing", "##ed", "##er", "trans", "##fer", "arr", "##ived", "unused"]
CLOSED = "bert.encoder.layer.1.output.dense"
FAMILIES = ("bert", "roberta", "electra", "distilbert")


def wordpiece_spec(words: list[str]) -> dict[str, object]:
    """A `tokenizer.json` of a WordPiece tokenizer: five special tokens, all letters and digits, `words`."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = string.ascii_lowercase + string.digits + "?!.,'"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]", *letters, *(f"##{c}" for c in letters), *words]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    spec: dict[str, object] = json.loads(tokenizer.to_str())
    return spec


def bpe_spec(texts: list[str], size: int = 400) -> dict[str, object]:
    """A `tokenizer.json` of a byte-level BPE tokenizer as RoBERTa has it, trained on `texts`; <mask> comes last."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(["<mask>"])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    spec: dict[str, object] = json.loads(tokenizer.to_str())
    return spec


def write_tiny(folder: Path, family: str, *, labels: int = 3, layers: int = 2, head: bool = True) -> Path:
    """A random classifier (32 wide, 4 heads, FFN 64) with its tokenizer; `head=False` stores the bare encoder."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    spec = bpe_spec([" ".join(WORDS)] * 3) if family == "roberta" else wordpiece_spec(WORDS + PIECES)
    count = max(_ids(spec)) + 1
    sizes: dict[str, object] = {"vocab_size": count, "max_position_embeddings": 40, "num_labels": labels}
    if family == "distilbert":
        sizes |= {"dim": 32, "n_layers": layers, "n_heads": 4, "hidden_dim": 64}
    else:
        sizes |= {"hidden_size": 32, "num_hidden_layers": layers, "num_attention_heads": 4, "intermediate_size": 64}
    if family == "electra":
        sizes["embedding_size"] = 16
    if family == "roberta":
        sizes |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **sizes)
    model = AutoModelForSequenceClassification.from_config(config) if head else AutoModel.from_config(config)
    with torch.no_grad():  # the stock initialization is so small that every logit is the bias
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    kind = {"roberta": "RobertaTokenizer"}.get(family, "BertTokenizer")
    settings = {"tokenizer_class": kind, "model_max_length": 32}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    if family != "roberta":
        ordered = sorted(_ids_by_token(spec).items(), key=lambda item: item[1])
        (folder / "vocab.txt").write_text("".join(f"{t}\n" for t, _ in ordered), encoding="utf-8")
    return folder


def write_closed(folder: Path) -> Path:
    """A BERT whose second FFN is behind a ReLU that never opens, so that nothing exercises `CLOSED`."""
    import torch

    from edgekit.nn.load import Edits, load_classifier, save_model

    write_tiny(folder, "bert")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}), encoding="utf-8")
    model = load_classifier(folder)
    with torch.no_grad():
        model.get_submodule("bert.encoder.layer.1.intermediate.dense").get_parameter("bias").fill_(-1e4)
    save_model(model, folder, tokenizer_from=folder, edits=Edits())
    return folder


def _ids_by_token(spec: dict[str, object]) -> dict[str, int]:
    from edgekit.nn.vocabulary import tokens_of

    return tokens_of(spec)


def _ids(spec: dict[str, object]) -> list[int]:
    return list(_ids_by_token(spec).values())


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Path]:
    """`tiny("bert", labels=3, layers=2, head=True)` makes a model folder and returns its path."""

    def make(family: str = "bert", **options: int) -> Path:
        return write_tiny(tmp_path / f"{family}-{len(list(tmp_path.iterdir()))}", family, **options)

    return make


@pytest.fixture(params=FAMILIES)
def any_family(request: pytest.FixtureRequest, tiny: Callable[..., Path]) -> Path:
    """A tiny model folder of each family in turn."""
    return tiny(request.param)


@pytest.fixture
def make_wordpiece() -> Callable[[list[str]], dict[str, object]]:
    return wordpiece_spec


@pytest.fixture
def make_bpe() -> Callable[..., dict[str, object]]:
    return bpe_spec
