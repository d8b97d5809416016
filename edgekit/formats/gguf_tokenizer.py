"""`tokenizer.json` in the terms of a GGUF file: WordPiece, byte-level BPE and SentencePiece unigram.

llama.cpp tokenizes by its own code and chooses it by names in the file. Its converter finds those names by a hash over
a known tokenizer's output, which no retrained or vocabulary-pruned tokenizer has; here `tokenizer.json` tells them.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import ModelError, Problem

if TYPE_CHECKING:
    from gguf import GGUFWriter

__all__ = ["Vocabulary", "read_spec", "read_vocabulary", "tokenizer_problems", "write_vocabulary"]

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5  # llama_token_type
TEMPLATE_SINGLE = "edgekit.template.single"  # "101 A 102": how token ids surround a text
TEMPLATE_PAIR = "edgekit.template.pair"  # "101 A 102 B 102"
PREFIX_SPACE = "edgekit.prefix_space"  # true: a space goes before a text that does not start with one
PHANTOM_SPACE = (
    "\u2581"  # llama.cpp marks the start of a word with it, where WordPiece marks what is not a start with ##
)

Spec = dict[str, Any]  # the JSON of tokenizer.json


@dataclass(frozen=True)
class Vocabulary:
    """What goes under `tokenizer.ggml.*`. `tokens`, `types` (and `scores`) have one entry per embedding row."""

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    single: str
    pair: str
    scores: list[float] | None = None
    merges: list[str] | None = None
    charsmap: bytes | None = None
    flags: dict[str, bool] = field(default_factory=dict)
    specials: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_spec(folder: Path) -> Spec:
    """The parsed `tokenizer.json`. Raises ModelError where it is missing or damaged."""
    path = folder / "tokenizer.json"
    try:
        spec = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder} has no tokenizer.json", hint="save it with a fast Transformers tokenizer") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: damaged ({error})") from None
    if not isinstance(spec, dict) or not isinstance(spec.get("model"), dict):
        raise ModelError(f"{path}: damaged (no tokenizer model in it)")
    return spec


def tokenizer_problems(spec: Spec) -> list[Problem]:
    """Why llama.cpp would not tokenize as this tokenizer does; [] where it would."""
    kind = model_kind(spec)
    checks = {"WordPiece": _wordpiece_problems, "BPE": _bpe_problems, "Unigram": _unigram_problems}
    if kind not in checks:
        return [_problem(f"a {kind} tokenizer", "llama.cpp has WordPiece, byte-level BPE and unigram")]
    problems = [_problem(what, "llama.cpp always does it the other way") for what in checks[kind](spec)]
    if template(spec) is None:
        problems.append(
            _problem("the post-processor", "a template of special tokens around one or two texts is needed")
        )
    return problems


def model_kind(spec: Spec) -> str:
    """WordPiece, BPE, Unigram, ...; old files name it only by what the model holds."""
    model = spec["model"]
    if "type" in model:
        return str(model["type"])
    return "BPE" if "merges" in model else "Unigram" if isinstance(model.get("vocab"), list) else "WordPiece"


def _problem(what: str, why: str) -> Problem:
    return Problem("tokenizer.json", f"{what} cannot be expressed in GGUF: {why}", "export to ONNX instead")


def _wordpiece_problems(spec: Spec) -> list[str]:
    normalizer, pre = spec.get("normalizer") or {}, spec.get("pre_tokenizer") or {}
    found = []
    if spec["model"].get("continuing_subword_prefix", "##") != "##":
        found.append("a subword prefix other than ##")
    if normalizer.get("type") != "BertNormalizer":
        found.append(f"the normalizer {normalizer.get('type')} of a WordPiece tokenizer")
    found += [f"{name}=false" for name in ("clean_text", "handle_chinese_chars") if not normalizer.get(name, True)]
    if pre.get("type") != "BertPreTokenizer":
        found.append(f"the pre-tokenizer {pre.get('type')} of a WordPiece tokenizer")
    return found


def _bpe_problems(spec: Spec) -> list[str]:
    model, pre = spec["model"], spec.get("pre_tokenizer") or {}
    found = []
    if spec.get("normalizer"):
        found.append(f"the normalizer {spec['normalizer'].get('type')} of a BPE tokenizer")
    if pre.get("type") != "ByteLevel" or not pre.get("use_regex", True):
        found.append(f"the pre-tokenizer {pre.get('type')} of a BPE tokenizer (ByteLevel is known)")
    for name in ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"):
        if model.get(name):
            found.append(f"{name} of a BPE tokenizer")
    return found


def _unigram_problems(spec: Spec) -> list[str]:
    found = []
    if charsmap(spec) is None:
        found.append("a unigram tokenizer without SentencePiece's character map")
    pre = spec.get("pre_tokenizer") or {}
    steps = pre.get("pretokenizers", []) if pre.get("type") == "Sequence" else [pre]
    names = [step.get("type") for step in steps]
    prefixed = all(_prepends(step) for step in steps if step.get("type") == "Metaspace")
    if names not in (["WhitespaceSplit", "Metaspace"], ["Metaspace"]) or not prefixed:
        found.append("a unigram tokenizer that does not start every word with a space mark")
    if spec["model"].get("byte_fallback"):
        found.append("byte_fallback of a unigram tokenizer")
    return found


def _prepends(metaspace: Spec) -> bool:
    return bool(metaspace.get("prepend_scheme", "always") == "always" and metaspace.get("add_prefix_space", True))


def charsmap(spec: Spec) -> bytes | None:
    """SentencePiece's compiled character map, where the normalizer is that (and at most merges spaces besides)."""
    normalizer = spec.get("normalizer") or {}
    steps = normalizer.get("normalizers", []) if normalizer.get("type") == "Sequence" else [normalizer]
    maps = [step["precompiled_charsmap"] for step in steps if step.get("type") == "Precompiled"]
    harmless = all(step.get("type") in ("Precompiled", "Strip") or _merges_spaces(step) for step in steps)
    return base64.b64decode(maps[0]) if len(maps) == 1 and harmless else None


def _merges_spaces(step: Spec) -> bool:
    return step.get("type") == "Replace" and step.get("pattern") == {"Regex": " {2,}"}


def template(spec: Spec) -> tuple[str, str] | None:
    """How token ids surround one text and two, such as ("101 A 102", "101 A 102 B 102"); None where it is neither."""
    processor = spec.get("post_processor") or {}
    if processor.get("type") == "Sequence":
        steps = [step for step in processor["processors"] if step.get("type") != "ByteLevel"]
        processor = steps[0] if len(steps) == 1 else {}
    kind = processor.get("type")
    if kind in ("BertProcessing", "RobertaProcessing"):
        cls, sep = processor["cls"][1], processor["sep"][1]
        middle = f"{sep} {sep}" if kind == "RobertaProcessing" else f"{sep}"
        return f"{cls} A {sep}", f"{cls} A {middle} B {sep}"
    if kind == "TemplateProcessing":
        return _pieces(processor, "single"), _pieces(processor, "pair")
    return None


def _pieces(processor: Spec, which: str) -> str:
    """One template as text: sequences by letter, special tokens by id."""
    pieces: list[str] = []
    for piece in processor[which]:
        if "Sequence" in piece:
            pieces.append(str(piece["Sequence"]["id"]))
        else:
            ids = processor["special_tokens"][piece["SpecialToken"]["id"]]["ids"]
            pieces += [str(number) for number in ids]
    return " ".join(pieces)


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
    tokens: list[str] = []
    clashes: list[str] = []
    seen: set[str] = set()
    for number, kind_of_token in enumerate(types):
        text = texts.get(number, f"[PAD{number}]")
        if kind == "WordPiece" and kind_of_token == NORMAL:
            text = text[2:] if text.startswith("##") and len(text) > 2 else PHANTOM_SPACE + text
        if text in seen:
            clashes.append(texts.get(number, text))
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
    if any(entry.get("single_word") or entry.get("rstrip") for entry in added.values()):
        notes.append("llama.cpp does not know the single_word and rstrip marks of added tokens")
    return notes


def write_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    """Add the vocabulary's metadata to a GGUF writer whose file is not open yet."""
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    if vocabulary.charsmap:
        writer.add_precompiled_charsmap(vocabulary.charsmap)
    for name, number in vocabulary.specials.items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", number)
    for name, value in vocabulary.flags.items():
        writer.add_bool(name, value)
    writer.add_bool("tokenizer.ggml.add_bos_token", "bos" in vocabulary.specials)
    last = "add_sep_token" if vocabulary.model == "bert" else "add_eos_token"
    writer.add_bool(f"tokenizer.ggml.{last}", "eos" in vocabulary.specials)
    writer.add_string(TEMPLATE_SINGLE, vocabulary.single)
    writer.add_string(TEMPLATE_PAIR, vocabulary.pair)
