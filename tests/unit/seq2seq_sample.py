"""Tiny random encoder-decoder models of each family, with a tokenizer trained on TEXTS, as folders."""

from __future__ import annotations

import json
from pathlib import Path

from edgekit.artifact import Artifact, Task

TEXTS = tuple(f"translate: there were {n} girls who'd played outside, and a dog." for n in range(40))
TASK = Task(kind="text-to-text", max_length=24)
VOCABULARY = 300


def tiny_seq2seq(folder: Path, family: str, **generation: object) -> Artifact:
    """32 wide, one layer or two; `generation` goes into generation_config.json."""
    import torch
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    folder.mkdir(parents=True, exist_ok=True)
    _tokenizer(folder)
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 0}
    sizes: dict[str, object] = {"vocab_size": VOCABULARY, "d_model": 32, **special}
    if family == "t5":
        sizes |= {"d_ff": 48, "d_kv": 8, "num_heads": 4, "num_layers": 1, "num_decoder_layers": 2}
        sizes |= {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 16}
    else:
        sizes |= {"encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 64}
        sizes |= {f"{part}_attention_heads": 4 for part in ("encoder", "decoder")}
        sizes |= {f"{part}_ffn_dim": 48 for part in ("encoder", "decoder")}
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(family, **sizes))
    with torch.no_grad():  # the stock initialization answers alike everywhere
        for name, parameter in model.named_parameters():
            if "embed_positions" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.generation_config.update(**generation)
    model.save_pretrained(folder)
    return Artifact.outside(folder, TASK)


def _tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "</s>", "pad_token": "<pad>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
