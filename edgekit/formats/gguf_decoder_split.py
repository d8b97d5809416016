"""The rule by which byte-level BPE splits text into words, by the name that llama.cpp has for it.

Source: llama.cpp, `llm_tokenizer_bpe` in `src/llama-vocab.cpp` (its comments give the expressions of `tokenizer.json`).
"""

from __future__ import annotations

from edgekit.formats.gguf_check import Spec

__all__ = ["split_name"]

DIGITS = "individual digits"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SUFFIXES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
REST_SLASH = REST.replace(r"[\r\n]*|", r"[\r\n/]*|", 1)
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
LEAD = r"[^\r\n\p{L}\p{N}]?"
LLAMA3 = rf"{SUFFIXES}|{LEAD}\p{{L}}+|\p{{N}}{{1,3}}|{REST}"
QWEN2 = rf"{SUFFIXES}|{LEAD}\p{{L}}+|\p{{N}}|{REST}"
QWEN35 = rf"{SUFFIXES}|{LEAD}[\p{{L}}\p{{M}}]+|\p{{N}}|{REST}".replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]")
TEKKEN = rf"{LEAD}{UPPER}*{LOWER}+|{LEAD}{UPPER}+{LOWER}*|\p{{N}}|{REST_SLASH}"
GPT4O = rf"{LEAD}{UPPER}*{LOWER}+{SUFFIXES}?|{LEAD}{UPPER}+{LOWER}*{SUFFIXES}?|\p{{N}}{{1,3}}|{REST_SLASH}"
NAMES: dict[tuple[str, ...], tuple[str, str]] = {  # the second: where whole words are looked up before merging
    (GPT2,): ("gpt-2", "gpt-2"),
    (DIGITS, GPT2): ("smollm", "smollm"),
    (LLAMA3,): ("smaug-bpe", "llama-bpe"),
    (QWEN2,): ("qwen2", "qwen2"),
    (QWEN35,): ("qwen35", "qwen35"),
    (TEKKEN,): ("tekken", "tekken"),
    (GPT4O,): ("gpt-4o", "gpt-4o"),
}


def split_name(spec: Spec) -> str | None:
    """llama.cpp's name of the rule in `tokenizer.json`; None where it has none like it."""
    part = spec.get("pre_tokenizer") or {}
    steps = part.get("pretokenizers", []) if part.get("type") == "Sequence" else [part]
    if not steps or steps[-1].get("type") != "ByteLevel":
        return None
    rules: list[str | None] = [_rule(step) for step in steps[:-1]]
    if steps[-1].get("use_regex", True):
        rules.append(GPT2)
    names = NAMES.get(tuple(str(rule) for rule in rules))
    return names[bool(spec["model"].get("ignore_merges"))] if names else None


def _rule(step: Spec) -> str | None:
    """The regular expression that a step splits by."""
    if step.get("type") == "Digits":
        return DIGITS if step.get("individual_digits") else None
    if step.get("type") == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
        found = (step.get("pattern") or {}).get("Regex")
        return str(found) if found else None
    return None
