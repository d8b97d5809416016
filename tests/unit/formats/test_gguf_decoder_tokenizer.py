"""Token ids of stock llama.cpp and of the tokenizers library, for tokenizers that are trained here."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from decoder_sample import SIZES, TEXTS, byte_level

from edgekit.errors import ModelError, StageError
from edgekit.formats.gguf_decoder_check import compare_tokens
from edgekit.formats.gguf_decoder_config import describe
from edgekit.formats.gguf_decoder_split import GPT2, GPT4O, LLAMA3, QWEN2, QWEN35, TEKKEN
from edgekit.formats.gguf_decoder_tokenizer import read_decoder_vocabulary, write_decoder_vocabulary

gguf = pytest.importorskip("gguf")
pytest.importorskip("llama_cpp")
HARD = [
    "",
    "a",
    " a",
    "naïve façade 😀 x=1",
    "I'LL you'Re 2024-01-02 1234567",
    "tab\there\r\n\r\n  end ",
    "你好，世界!?",
]
CONFIG = {"model_type": "llama", **SIZES}


def write_vocabulary(folder: Path, rows: int = 320) -> Path:
    """A GGUF file with no tensors: llama.cpp loads its vocabulary alone."""
    vocabulary = read_decoder_vocabulary(folder, rows)
    out = folder / "vocabulary.gguf"
    writer = gguf.GGUFWriter(out, "llama")
    describe(writer, dict(CONFIG), "ALL_F32")
    write_decoder_vocabulary(writer, vocabulary)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return out


def same(folder: Path, texts: list[str]) -> None:
    found = compare_tokens(write_vocabulary(folder), folder, texts)
    assert (found.same, found.first) == (len(texts), "")


@pytest.mark.parametrize(
    "rule", [GPT2, LLAMA3, QWEN2, QWEN35, TEKKEN, GPT4O], ids=["gpt2", "llama3", "qwen2", "qwen35", "tekken", "4o"]
)
def test_byte_level_rules_are_known_by_their_expression(rule: str, tmp_path: Path) -> None:
    from tokenizers import Regex, pre_tokenizers

    split = pre_tokenizers.Split(Regex(rule), "isolated")
    steps = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    byte_level(tmp_path, pre_tokenizer=steps)
    same(tmp_path, [*TEXTS, *HARD])


def test_single_digits(tmp_path: Path) -> None:
    from tokenizers import pre_tokenizers

    steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    byte_level(tmp_path, pre_tokenizer=pre_tokenizers.Sequence(steps))
    same(tmp_path, [*TEXTS, *HARD])


@pytest.mark.parametrize("ignore", [False, True])
def test_whole_words_come_before_merges_where_the_model_says_so(ignore: bool, tmp_path: Path) -> None:
    from tokenizers import Regex, pre_tokenizers

    split = pre_tokenizers.Split(Regex(LLAMA3), "isolated")
    steps = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    byte_level(tmp_path, pre_tokenizer=steps)
    spec = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    spec["model"]["vocab"]["Ġgirl"] = 315  # a word that no merge makes
    spec["model"]["ignore_merges"] = ignore
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    same(tmp_path, TEXTS)


def test_tokens_around_a_text_and_a_chat_template(tmp_path: Path) -> None:
    from tokenizers import processors

    around = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    byte_level(tmp_path, post_processor=around)
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    same(tmp_path, [*TEXTS, *HARD, "one</s>two"])
    reader = gguf.GGUFReader(tmp_path / "vocabulary.gguf")
    assert reader.fields["tokenizer.chat_template"].contents() == "{{ messages }}"
    assert reader.fields["tokenizer.ggml.bos_token_id"].contents() == 0
    assert reader.fields["tokenizer.ggml.eos_token_id"].contents() == 1


def sentencepiece(folder: Path, style: str, *, keep_model: bool, bytes_too: bool = True) -> None:
    """A SentencePiece BPE model trained here, as tokenizer.model and as Transformers writes it into tokenizer.json."""
    import sentencepiece as spm
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

    data = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 5),
        model_writer=data,
        vocab_size=315,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    model = spm.SentencePieceProcessor(model_proto=data.getvalue())
    pieces = {model.id_to_piece(i): i for i in range(model.get_piece_size())}
    merges = [
        (-model.get_score(number), (text[:cut], text[cut:]))
        for text, number in pieces.items()
        for cut in range(1, len(text))
        if text[:cut] in pieces and text[cut:] in pieces and not model.is_byte(number)
    ]
    tokenizer = Tokenizer(
        models.BPE(pieces, [pair for _, pair in sorted(merges)], byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    )
    if style == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    elif style == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in ("<unk>", "<s>", "</s>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    if keep_model:
        (folder / "tokenizer.model").write_bytes(data.getvalue())


@pytest.mark.parametrize("style", ["metaspace", "prepend", "bare"])
@pytest.mark.parametrize("keep_model", [True, False], ids=["tokenizer.model", "tokenizer.json alone"])
def test_sentencepiece(style: str, keep_model: bool, tmp_path: Path) -> None:
    sentencepiece(tmp_path, style, keep_model=keep_model)
    same(tmp_path, [*TEXTS, *(text for text in HARD if style != "prepend" or text)])
    kept = read_decoder_vocabulary(tmp_path, 320)
    assert kept.types[kept.tokens.index("<0x41>")] == 6


def test_a_vocabulary_of_letters_survives_unknown_ones(tmp_path: Path) -> None:
    """llama.cpp's SentencePiece ends the process at a letter that has no byte token."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = {text: i for i, text in enumerate(["<unk>", "<s>", "</s>", "▁", *"abcdeghiklmnoprstuvwy"])}
    tokenizer = Tokenizer(models.BPE(letters, [], byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    same(tmp_path, ["some letters", "an 😀 unknown one", "a"])


def test_what_llama_cpp_has_no_word_for_is_refused(tmp_path: Path) -> None:
    from tokenizers import Regex, normalizers, pre_tokenizers

    odd = pre_tokenizers.Split(Regex(r"\d+|\D+"), "isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    cases: dict[str, dict[str, Any]] = {
        "the pre-tokenizer's rule": {"pre_tokenizer": pre_tokenizers.Sequence([odd, bytes_only])},
        "add_prefix_space": {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=True)},
        "the normalizer": {"normalizer": normalizers.Lowercase()},
    }
    for what, parts in cases.items():
        byte_level(tmp_path, **parts)
        with pytest.raises(StageError, match=what):
            read_decoder_vocabulary(tmp_path, 320)


def test_a_token_without_an_embedding_row_is_named(tmp_path: Path) -> None:
    byte_level(tmp_path)
    with pytest.raises(ModelError, match="the embedding has 200 rows"):
        read_decoder_vocabulary(tmp_path, 200)


def test_a_repeated_token_does_not_end_llama_cpp(tmp_path: Path) -> None:
    byte_level(tmp_path)
    spec = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    spec["model"]["vocab"]["[PAD318]"] = 316  # the name that a row without a token gets
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    assert any("[PAD318]" in note for note in read_decoder_vocabulary(tmp_path, 320).notes)
    same(tmp_path, TEXTS)
