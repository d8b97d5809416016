"""`tokenizer.json` in the terms of a GGUF file: WordPiece, byte-level BPE and SentencePiece unigram.

llama.cpp tokenizes by its own code and chooses it by names in the file. Its converter finds those names by a hash over
a known tokenizer's output, which no retrained or vocabulary-pruned tokenizer has; here `tokenizer.json` tells them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgekit.errors import ModelError
from edgekit.formats.gguf_check import Spec, charsmap, composes, model_kind, template

if TYPE_CHECKING:
    from gguf import GGUFWriter

__all__ = ["Pieces", "Vocabulary", "mark_repeated", "read_vocabulary", "write_pieces", "write_vocabulary"]

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5  # llama_token_type
TEMPLATE_SINGLE = "edgekit.template.single"  # "101 A 102": how token ids surround a text
TEMPLATE_PAIR = "edgekit.template.pair"  # "101 A 102 B 102"
PREFIX_SPACE = "edgekit.prefix_space"  # true: a space goes before a text that does not start with one
PHANTOM_SPACE = "\u2581"  # llama.cpp marks where a word starts, WordPiece (by ##) where it does not


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """What every tokenizer has under `tokenizer.ggml.*`; `tokens`, `types` (and `scores`) have one entry per embedding
    row. `model` is llama.cpp's name of the algorithm, `pre` of the rule that splits text."""

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float] | None = None
    merges: list[str] | None = None
    charsmap: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Vocabulary(Pieces):
    """An encoder's: how special tokens surround texts, and switches by their full key."""

    single: str
    pair: str
    flags: dict[str, bool] = field(default_factory=dict)
    specials: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_vocabulary(spec: Spec, rows: int, pad: int | None) -> Vocabulary:
    """The vocabulary of a tokenizer that has no problems, for an embedding of `rows` rows.

    `pad`: the padding id of config.json. Raises ModelError for a token whose id has no embedding row.
    """
    kind, model = model_kind(spec), spec["model"]
    pairs = list(model["vocab"].items()) if kind != "Unigram" else [(p[0], i) for i, p in enumerate(model["vocab"])]
    added = {entry["id"]: entry for entry in spec.get("added_tokens", [])}
    texts = {number: text for text, number in pairs} | {number: entry["content"] for number, entry in added.items()}
    if texts and max(texts) >= rows:
        raise ModelError(f"token {texts[max(texts)]!r} has id {max(texts)}, but the embedding has {rows} rows")
    unknown = _unknown_id(spec, {text: number for number, text in texts.items()})
    types = [UNUSED] * rows
    for number in texts:
        entry = added.get(number)
        types[number] = NORMAL if entry is None else CONTROL if entry["special"] else USER_DEFINED
    if unknown is not None:
        types[unknown] = UNKNOWN
    single, pair = template(spec) or ("A", "A B")
    tokens, clashes = _token_texts(kind, texts, types)
    return Vocabulary(
        model={"WordPiece": "bert", "BPE": "gpt2", "Unigram": "t5"}[kind],
        pre="roberta-bpe" if kind == "BPE" else "default",
        tokens=tokens,
        types=types,
        single=single,
        pair=pair,
        scores=_scores(model, rows) if kind == "Unigram" else None,
        merges=[m if isinstance(m, str) else " ".join(m) for m in model["merges"]] if kind == "BPE" else None,
        charsmap=charsmap(spec) if kind == "Unigram" else None,
        flags=_flags(kind, spec),
        specials=_specials(single, unknown, pad, texts),
        notes=(
            *_notes(kind, spec, added),
            *(f"token {text!r} clashes with another and is never produced" for text in clashes),
        ),
    )


def _unknown_id(spec: Spec, ids: dict[str, int]) -> int | None:
    model = spec["model"]
    if isinstance(model.get("unk_id"), int):
        return int(model["unk_id"])
    return ids.get(model.get("unk_token") or "<unk>")


def _token_texts(kind: str, texts: dict[int, str], types: list[int]) -> tuple[list[str], list[str]]:
    """Token texts as llama.cpp wants them, and those that clash: it aborts on a repeated text, so these get a mark."""
    shown = []
    for number, kind_of_token in enumerate(types):
        text = texts.get(number, f"[PAD{number}]")
        if kind == "WordPiece" and kind_of_token == NORMAL:
            text = text[2:] if text.startswith("##") and len(text) > 2 else PHANTOM_SPACE + text
        shown.append(text)
    tokens, clashes = mark_repeated(shown, types)
    return tokens, [texts.get(number, shown[number]) for number in clashes]


def mark_repeated(texts: list[str], types: list[int]) -> tuple[list[str], list[int]]:
    """Token texts of which none occurs twice, and the numbers of those that got a mark: llama.cpp aborts on a repeated
    text. Their `types` become unused."""
    tokens: list[str] = []
    clashes: list[int] = []
    seen: set[str] = set()
    for number, text in enumerate(texts):
        if text in seen:
            clashes.append(number)
            text, types[number] = f"{text}[{number}]", UNUSED
        seen.add(text)
        tokens.append(text)
    return tokens, clashes


def _scores(model: Spec, rows: int) -> list[float]:
    scores = [float(piece[1]) for piece in model["vocab"]]
    return scores + [-10000.0] * (rows - len(scores))


def _flags(kind: str, spec: Spec) -> dict[str, bool]:
    """Metadata switches by their full key."""
    normalizer = spec.get("normalizer") or {}
    if kind == "WordPiece":
        lower = bool(normalizer.get("lowercase", True))
        strip = normalizer.get("strip_accents")
        return {
            "tokenizer.ggml.normalizer.lowercase": lower,
            "tokenizer.ggml.normalizer.strip_accents": lower if strip is None else bool(strip),
        }
    if kind == "BPE":
        return {PREFIX_SPACE: bool(spec["pre_tokenizer"].get("add_prefix_space"))}
    return {"tokenizer.ggml.add_space_prefix": True, "tokenizer.ggml.remove_extra_whitespaces": True}


def _specials(single: str, unknown: int | None, pad: int | None, texts: dict[int, str]) -> dict[str, int]:
    """Special ids by GGUF's names: the template's first and last, the unknown, padding and mask tokens."""
    before, _, after = single.partition("A")
    found: dict[str, int | None] = {
        "bos": int(before.split()[0]) if before.split() else None,
        "eos": int(after.split()[-1]) if after.split() else None,
        "seperator": int(after.split()[-1]) if after.split() else None,  # GGUF's own spelling
        "unknown": unknown,
        "padding": pad,
        "mask": next((number for number, text in texts.items() if text in ("[MASK]", "<mask>")), None),
    }
    return {name: number for name, number in found.items() if number is not None}


def _notes(kind: str, spec: Spec, added: dict[int, Spec]) -> list[str]:
    """Rare texts that llama.cpp tokenizes otherwise."""
    notes = []
    if kind == "WordPiece":
        longest = spec["model"].get("max_input_chars_per_word", 100)
        notes.append(f"llama.cpp splits a word of more than {longest} characters, where Transformers has [UNK]")
        if _flags(kind, spec)["tokenizer.ggml.normalizer.strip_accents"]:
            notes.append("llama.cpp strips Hangul vowels and Indic vowel signs with the accents, Transformers does not")
    if kind == "BPE" and composes(spec):
        notes.append("llama.cpp does not compose characters (NFC) before it tokenizes")
    if any(entry.get("single_word") or entry.get("rstrip") for entry in added.values()):
        notes.append("llama.cpp does not know the single_word and rstrip marks of added tokens")
    return notes


def write_pieces(writer: GGUFWriter, pieces: Pieces) -> None:
    """Add what every tokenizer has to a GGUF writer whose file is not open yet."""
    writer.add_tokenizer_model(pieces.model)
    writer.add_tokenizer_pre(pieces.pre)
    writer.add_token_list(pieces.tokens)
    writer.add_token_types(pieces.types)
    if pieces.scores is not None:
        writer.add_token_scores(pieces.scores)
    if pieces.merges is not None:
        writer.add_token_merges(pieces.merges)
    if pieces.charsmap:
        writer.add_precompiled_charsmap(pieces.charsmap)


def write_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    """Add the vocabulary's metadata to a GGUF writer whose file is not open yet."""
    write_pieces(writer, vocabulary)
    for name, number in vocabulary.specials.items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", number)
    for name, value in vocabulary.flags.items():
        writer.add_bool(name, value)
    writer.add_bool("tokenizer.ggml.add_bos_token", "bos" in vocabulary.specials)
    last = "add_sep_token" if vocabulary.model == "bert" else "add_eos_token"
    writer.add_bool(f"tokenizer.ggml.{last}", "eos" in vocabulary.specials)
    writer.add_string(TEMPLATE_SINGLE, vocabulary.single)
    writer.add_string(TEMPLATE_PAIR, vocabulary.pair)
