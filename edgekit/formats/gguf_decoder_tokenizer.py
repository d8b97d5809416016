"""A decoder's `tokenizer.json` in the terms of a GGUF file: byte-level BPE, SentencePiece BPE, SentencePiece unigram.

llama.cpp splits text before byte-level BPE by a rule it knows by name. Its converter finds the name by a hash over a
known tokenizer's output, which no retrained or vocabulary-pruned tokenizer has; here the regular expression in
`tokenizer.json` tells it. SentencePiece BPE is a matter of scores: the higher one is merged first, so that without
`tokenizer.model` the order of the merges gives them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import ModelError, Problem, StageError
from edgekit.formats.gguf_check import Spec, charsmap, model_kind, read_spec, template, tokenizer_problems
from edgekit.formats.gguf_decoder_split import split_name
from edgekit.formats.gguf_tokenizer import (
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Pieces,
    mark_repeated,
    write_pieces,
)

if TYPE_CHECKING:
    from gguf import GGUFWriter

__all__ = [
    "DecoderVocabulary",
    "decoder_tokenizer_problems",
    "doubles_space",
    "read_decoder_vocabulary",
    "write_decoder_vocabulary",
]

BYTE = 6  # llama_token_type, beside those of gguf_tokenizer
BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
SPECIALS = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
NEVER = -1e9  # score of a piece that no merge makes


@dataclass(frozen=True, kw_only=True)
class DecoderVocabulary(Pieces):
    """A decoder's. `before`, `after`: whether bos and eos are put around a text; `templates`: one chat template, or
    several by name."""

    specials: dict[str, int]
    before: bool
    after: bool
    prefix_space: bool
    templates: str | list[dict[str, str]] | None = None
    notes: tuple[str, ...] = field(default=())


def decoder_tokenizer_problems(spec: Spec) -> list[Problem]:
    """Why llama.cpp would not tokenize as this tokenizer does; [] where it would."""
    kind = model_kind(spec)
    if kind == "Unigram":
        return tokenizer_problems(spec)
    if kind != "BPE":
        return [_problem(f"a {kind} tokenizer", "decoders in llama.cpp have byte-level BPE or SentencePiece")]
    found = []
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if spec["model"].get(name):
            found.append(_problem(name, "llama.cpp has no such mark"))
    if _is_sentencepiece(spec):
        if not all(
            step.get("type") in ("Prepend", "Replace") for step in _steps(spec.get("normalizer"), "normalizers")
        ):
            found.append(_problem("the normalizer", "llama.cpp only replaces spaces"))
        if not _is_letters(spec) and sum(bool(BYTE_TOKEN.fullmatch(text)) for text in spec["model"]["vocab"]) < 256:
            found.append(_problem("a vocabulary without all 256 bytes", "llama.cpp ends at a letter it does not know"))
    else:
        if split_name(spec) is None:
            found.append(_problem("the pre-tokenizer's rule", "llama.cpp has no rule like it"))
        if any(step.get("add_prefix_space") for step in _steps(spec.get("pre_tokenizer"), "pretokenizers")):
            found.append(_problem("add_prefix_space", "llama.cpp puts no space before a text"))
        if any(step.get("type") != "NFC" for step in _steps(spec.get("normalizer"), "normalizers")):
            found.append(_problem("the normalizer", "llama.cpp changes no text before byte-level BPE"))
    if _around(spec) is None:
        found.append(_problem("the post-processor", "at most one token before a text and one after it can be said"))
    return found


def _problem(what: str, why: str) -> Problem:
    return Problem("tokenizer.json", f"{what} cannot be expressed in GGUF: {why}", "export to onnx-genai instead")


def _steps(part: Spec | None, key: str) -> list[Spec]:
    """A normalizer's or pre-tokenizer's steps, whether it is a sequence or alone."""
    if not part:
        return []
    return list(part[key]) if part.get("type") == "Sequence" else [part]


def _is_sentencepiece(spec: Spec) -> bool:
    """SentencePiece's BPE falls back to byte tokens; byte-level BPE has every byte as a letter."""
    return bool(spec["model"].get("byte_fallback"))


def _is_letters(spec: Spec) -> bool:
    """SentencePiece without merges: a vocabulary of letters, which llama.cpp's unigram tokenizer reads just so."""
    return _is_sentencepiece(spec) and not spec["model"]["merges"]


def doubles_space(spec: Spec) -> bool:
    """Whether llama.cpp, as SentencePiece, puts a space before a text that begins with one, and tokenizers does not."""
    steps = _steps(spec.get("pre_tokenizer"), "pretokenizers")
    return _prefixes(spec) and any(step.get("type") == "Metaspace" for step in steps)


def _around(spec: Spec) -> tuple[int | None, int | None] | None:
    """The token ids before and after a text; None where it is more than that."""
    steps = _steps(spec.get("post_processor"), "processors")
    if all(step.get("type") == "ByteLevel" for step in steps):
        return None, None
    found = template(spec)
    if found is None:
        return None
    before, _, after = (part.split() for part in found[0].partition("A"))
    if len(before) > 1 or len(after) > 1:
        return None
    return int(before[0]) if before else None, int(after[0]) if after else None


def read_decoder_vocabulary(folder: Path, rows: int) -> DecoderVocabulary:
    """The folder's vocabulary, for an embedding of `rows` rows.

    Raises StageError where llama.cpp has no such tokenizer, ModelError where tokenizer.json is missing or damaged or a
    token has no embedding row.
    """
    spec = read_spec(folder)
    problems = decoder_tokenizer_problems(spec)
    if problems:
        raise StageError("llama.cpp cannot tokenize as this model does", problems=tuple(problems))
    model = spec["model"]
    texts = _texts(spec)
    if max(texts) >= rows:
        raise ModelError(f"token {texts[max(texts)]!r} has id {max(texts)}, but the embedding has {rows} rows")
    unigram = model_kind(spec) == "Unigram" or _is_letters(spec)
    sentencepiece = _is_sentencepiece(spec) and not unigram
    before, after = _around(spec) or (None, None)
    known = {"bos": before, "eos": after, "unknown": _unknown(spec, texts)}
    types = _types(spec, texts, rows, sentencepiece or unigram)
    shown = [texts.get(number, f"[PAD{number}]") for number in range(rows)]
    tokens, clashes = mark_repeated(shown, types)
    scores = None
    if unigram:
        pieces = [] if _is_letters(spec) else [float(piece[1]) for piece in model["vocab"]]
        scores = pieces + [0.0 if _is_letters(spec) else NEVER] * (rows - len(pieces))
    elif sentencepiece:
        scores = _scores(folder, spec, texts, rows)
    normalizes = any(step.get("type") == "NFC" for step in _steps(spec.get("normalizer"), "normalizers"))
    return DecoderVocabulary(
        model="t5" if unigram else "llama" if sentencepiece else "gpt2",
        pre="default" if sentencepiece or unigram else str(split_name(spec)),
        tokens=tokens,
        types=types,
        specials=_specials(folder, texts, known),
        before=before is not None,
        after=after is not None,
        prefix_space=_prefixes(spec),
        scores=scores,
        merges=None if scores else [m if isinstance(m, str) else " ".join(m) for m in model["merges"]],
        charsmap=charsmap(spec) if unigram else None,
        templates=read_chat_template(folder),
        notes=(
            *(("llama.cpp does not compose characters (NFC) before it tokenizes",) if normalizes else ()),
            *(("before a text that begins with a space, llama.cpp puts another",) if doubles_space(spec) else ()),
            *(f"token {shown[number]!r} clashes with another and is never produced" for number in clashes),
        ),
    )


def _texts(spec: Spec) -> dict[int, str]:
    vocab = spec["model"]["vocab"]
    pairs = vocab.items() if isinstance(vocab, dict) else ((piece[0], i) for i, piece in enumerate(vocab))
    texts = {int(number): str(text) for text, number in pairs}
    return texts | {int(entry["id"]): str(entry["content"]) for entry in spec.get("added_tokens", [])}


def _types(spec: Spec, texts: dict[int, str], rows: int, pieces: bool) -> list[int]:
    types = [UNUSED] * rows
    for number, text in texts.items():
        types[number] = BYTE if pieces and BYTE_TOKEN.fullmatch(text) else NORMAL
    for entry in spec.get("added_tokens", []):
        types[entry["id"]] = CONTROL if entry["special"] else USER_DEFINED
    unknown = _unknown(spec, texts)
    if pieces and unknown is not None:
        types[unknown] = UNKNOWN
    return types


def _unknown(spec: Spec, texts: dict[int, str]) -> int | None:
    """The id of what cannot be spelled."""
    model = spec["model"]
    if isinstance(model.get("unk_id"), int):
        return int(model["unk_id"])
    wanted = model.get("unk_token") or "<unk>"
    return next((number for number, text in texts.items() if text == wanted), None)


def _scores(folder: Path, spec: Spec, texts: dict[int, str], rows: int) -> list[float]:
    """Of tokenizer.model where its pieces are these, else by the order of the merges."""
    own = _sentencepiece_scores(folder / "tokenizer.model")
    if own and all(text in own for number, text in texts.items() if number < len(own)):
        return [own.get(texts.get(number, ""), 0.0) for number in range(rows)]
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(spec["model"]["merges"]):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        ranks.setdefault(left + right, rank)
    return [-float(ranks[text]) if (text := texts.get(number)) in ranks else NEVER for number in range(rows)]


def _sentencepiece_scores(path: Path) -> dict[str, float]:
    if not path.is_file():
        return {}
    from sentencepiece import SentencePieceProcessor

    try:
        model = SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{path}: damaged ({error})") from None
    return {model.id_to_piece(i): float(model.get_score(i)) for i in range(model.get_piece_size())}


def _prefixes(spec: Spec) -> bool:
    """Whether a space is put before a text."""
    if any(step.get("type") == "Prepend" for step in _steps(spec.get("normalizer"), "normalizers")):
        return True
    spaces = [s for s in _steps(spec.get("pre_tokenizer"), "pretokenizers") if s.get("type") == "Metaspace"]
    return any(s.get("prepend_scheme", "always") != "never" and s.get("add_prefix_space", True) for s in spaces)


def _settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json; {} where there is none."""
    return _read(folder / "tokenizer_config.json")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: damaged ({error})") from None
    return found if isinstance(found, dict) else {}


def _specials(folder: Path, texts: dict[int, str], known: dict[str, int | None]) -> dict[str, int]:
    """Special ids by GGUF's names: those `known` of tokenizer.json, else of tokenizer_config.json, else of config.json.

    A model without one gets the other for bos and eos: without any, llama.cpp takes token 11.
    """
    ids = {text: number for number, text in texts.items()}
    settings, found = _settings(folder), {}
    config = _read(folder / "config.json") | _read(folder / "generation_config.json")
    for name, key in SPECIALS.items():
        value = settings.get(key)
        text = value.get("content") if isinstance(value, dict) else value
        given = config.get(f"{key}_id")
        numbers = [n for n in (given if isinstance(given, list) else [given]) if isinstance(n, int) and n in texts]
        if text in ids:
            numbers.insert(0, ids[text])
        if numbers:
            found[name] = numbers[0]
        others = [n for n in numbers if n != numbers[0]]
        if name == "eos" and others:
            found["eot"] = others[0]
    found |= {name: number for name, number in known.items() if number is not None}
    for name, other in (("bos", "eos"), ("eos", "bos")):
        if other in found:
            found.setdefault(name, found[other])
    return found


def read_chat_template(folder: Path) -> str | list[dict[str, str]] | None:
    """The chat template, or several by name: a file of its own, or in tokenizer_config.json; None where there is none.

    Raises ModelError where tokenizer_config.json is damaged.
    """
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    found = _settings(folder).get("chat_template")
    return found if isinstance(found, str | list) else None


def write_decoder_vocabulary(writer: GGUFWriter, vocabulary: DecoderVocabulary) -> None:
    """Add the vocabulary's metadata to a GGUF writer whose file is not open yet."""
    write_pieces(writer, vocabulary)
    if vocabulary.charsmap:
        writer.add_remove_extra_whitespaces(True)
    for name, number in vocabulary.specials.items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", number)
    writer.add_add_bos_token(vocabulary.before)
    writer.add_add_eos_token(vocabulary.after)
    writer.add_add_space_prefix(vocabulary.prefix_space)
    if vocabulary.templates:
        writer.add_chat_template(vocabulary.templates)
