"""Reading `tokenizer.json`, and whether llama.cpp can tokenize as it says."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from edgekit.errors import ModelError, Problem
from edgekit.tokenizer_files import FAST, tokenizer_json

__all__ = ["Spec", "charsmap", "composes", "model_kind", "read_spec", "template", "tokenizer_problems"]

Spec = dict[str, Any]  # the JSON of tokenizer.json


def read_spec(folder: Path) -> Spec:
    """The parsed `tokenizer.json`. Raises ModelError where it is damaged, and as `tokenizer_json` does."""
    path = folder / FAST
    try:
        spec = json.loads(tokenizer_json(folder))
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
    if spec.get("normalizer") and not composes(spec):
        found.append(f"the normalizer {spec['normalizer'].get('type')} of a BPE tokenizer")
    if pre.get("type") != "ByteLevel" or not pre.get("use_regex", True):
        found.append(f"the pre-tokenizer {pre.get('type')} of a BPE tokenizer (ByteLevel is known)")
    for name in ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"):
        if model.get(name):
            found.append(f"{name} of a BPE tokenizer")
    return found


def composes(spec: Spec) -> bool:
    """Whether all the normalizer does is to compose characters (NFC), as most texts come."""
    return bool((spec.get("normalizer") or {}).get("type") == "NFC")


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
