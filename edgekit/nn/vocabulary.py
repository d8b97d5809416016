"""Pruning the vocabulary: which tokens to keep, and a tokenizer that splits texts made of them exactly as before.

Why that holds, per model of `tokenizer.json` (V the old vocabulary, V' the kept part):

- WordPiece takes the longest token of V that fits, again and again. If each token it took is in V', the longest that
  fits from V' is the same one. (A word becomes [UNK] where some position fits nothing; `seen_tokens` counts the tokens
  taken up to there as seen too, so that no shorter pieces are found in their place.)
- BPE applies, of the merges that fit, the one of lowest rank. The merges that lead to a kept token are kept, in their
  order (`_close_merges`), so at each step the merge applied before is still there, and no new one competes with it.
- Unigram takes the path of highest total score. The old best path is still there, among fewer. The lowest-scored piece
  is kept because the score of an unknown character hangs on it.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgekit.errors import StageError
from edgekit.model_config import ModelConfig
from edgekit.nn.families import family_of
from edgekit.tokenizer_files import open_tokenizer, stored_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "MARK",
    "Keep",
    "always_kept",
    "check_same",
    "choose_tokens",
    "load_spec",
    "prune_embedding",
    "seen_tokens",
    "special_tokens",
    "tokens_of",
    "write_tokenizer",
]

Keep = Literal["data", "data+letters", "data+pieces"]
MARK = "ˇ"  # before a token that starts with a capital letter (`letter_case`); to Unicode and BERT's rules a letter
Spec = dict[str, Any]  # the JSON of tokenizer.json, as the tokenizers library normalizes it


def load_spec(folder: Path) -> Spec:
    """`tokenizer.json` of the folder. Raises StageError for a model type that cannot be pruned, and ModelError as
    `stored_tokenizer` does."""
    spec: Spec = json.loads(stored_tokenizer(folder).to_str())
    kind = spec["model"]["type"]
    if kind not in ("WordPiece", "BPE", "Unigram"):
        raise StageError(
            f"the vocabulary of a {kind} tokenizer cannot be pruned",
            hint="WordPiece, BPE and Unigram can; leave `vocabulary` off",
        )
    return spec


def tokens_of(spec: Spec) -> dict[str, int]:
    """Token -> id, added tokens included."""
    vocab = spec["model"]["vocab"]
    found = {piece: i for i, (piece, _) in enumerate(vocab)} if isinstance(vocab, list) else dict(vocab)
    return found | {added["content"]: added["id"] for added in spec["added_tokens"]}


def seen_tokens(spec: Spec, texts: Iterable[str]) -> Counter[int]:
    """How often each token id occurs when `texts` are split (whole texts: no truncation, no special tokens around)."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(json.dumps(spec))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    counts: Counter[int] = Counter()
    unknown_words: Counter[str] = Counter()
    model = spec["model"]
    unknown = tokens_of(spec).get(model.get("unk_token")) if model["type"] == "WordPiece" else None
    texts = list(texts)
    for start in range(0, len(texts), 1000):
        some = texts[start : start + 1000]
        for text, encoding in zip(some, tokenizer.encode_batch(some, add_special_tokens=False), strict=True):
            counts.update(encoding.ids)
            for token, (left, right) in zip(encoding.ids, encoding.offsets, strict=True):
                if token == unknown:
                    unknown_words[text[left:right]] += 1
    for word, times in unknown_words.items():
        normal = tokenizer.normalizer.normalize_str(word) if tokenizer.normalizer else word
        for token in _taken_before_unknown(normal.strip(), model):
            counts[token] += times
    return counts


def special_tokens(folder: Path) -> tuple[list[int], list[int]]:
    """Ids that the folder's tokenizer puts before and after a text."""
    tokenizer = open_tokenizer(folder)
    for text in ("a", *tokenizer.get_vocab()):  # the first that is a token: not every tokenizer has an "a"
        found = tokenizer.encode(text)
        own = [place for place, special in enumerate(found.special_tokens_mask) if not special]
        if own:
            return found.ids[: own[0]], found.ids[own[-1] + 1 :]
    raise StageError(f"the tokenizer in {folder} splits no text into tokens")


def _taken_before_unknown(word: str, model: Spec) -> list[int]:
    """Tokens that greedy longest match takes from a word before it finds none that fits."""
    taken, start = [], 0
    while start < len(word):
        lead = model["continuing_subword_prefix"] if start else ""
        for end in range(len(word), start, -1):
            token = model["vocab"].get(lead + word[start:end])
            if token is not None:
                break
        else:
            break
        taken.append(token)
        start = end
    return taken


def choose_tokens(
    spec: Spec, counts: Counter[int], *, keep: Keep, min_count: int, common: int, always: Iterable[int]
) -> list[int]:
    """Ids to keep, ascending, so that the order (and RoBERTa's padding id) stays.

    Kept are: `always` (ids the model's config names), all added and special tokens, tokens seen at least `min_count`
    times, the first `common` ids (vocabularies are mostly ordered by frequency; BERT's "[unused7]" excepted), single
    characters as `keep` says, and whatever the tokenizer's own algorithm needs to reach those.
    """
    tokens = tokens_of(spec)
    ids = set(tokens.values())
    kept = {i for i in always if i in ids} | {added["id"] for added in spec["added_tokens"]}
    kept |= {i for i, times in counts.items() if times >= min_count}
    kept |= {i for token, i in tokens.items() if _plain_id(token, tokens) < common and not token.startswith("[unused")}
    model = spec["model"]
    if model.get("unk_token") is not None:
        kept |= {tokens[model["unk_token"]]} & ids
    characters = _characters(tokens, model)
    by_id = {i: token for token, i in tokens.items()}
    if keep == "data+pieces" or (model["type"] == "BPE" and _byte_level(spec)):
        kept |= set(characters)
    elif keep == "data+letters":
        scripts = {_script(c) for i in kept if i in by_id for c in by_id[i]}
        kept |= {i for i, c in characters.items() if c.isascii() or _script(c) in scripts}
    if model["type"] == "BPE":
        kept = _close_merges(kept, tokens, by_id, model)
    if model["type"] == "Unigram":
        kept |= _unigram_needs(tokens, model)
    return sorted(kept)


def _plain_id(token: str, tokens: dict[str, int]) -> int:
    """The token's id, of a marked one that without its mark: it is as common."""
    return tokens.get(token.removeprefix(MARK), tokens[token])


def _characters(tokens: dict[str, int], model: Spec) -> dict[int, str]:
    """Ids of the tokens that are one character, alone or continuing a word, and that character."""
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    found = {}
    for token, i in tokens.items():
        forms = (token, *(token.removeprefix(lead) for lead in (prefix, "▁", MARK)), token.removesuffix(suffix))
        single = [form for form in forms if len(form) == 1]
        if single:
            found[i] = single[-1]
    return found


def _byte_level(spec: Spec) -> bool:
    """Whether text becomes bytes first; then 256 characters are all there are, and none may be missing."""
    return '"ByteLevel"' in json.dumps([spec["pre_tokenizer"], spec["normalizer"]])


def _script(character: str) -> str:
    """First word of the character's Unicode name: LATIN, CJK, DIGIT, ..."""
    return unicodedata.name(character, "?").split()[0]


def _pairs(model: Spec) -> list[tuple[str, str]]:
    """BPE merges as pairs; files have them as pairs or as "a b"."""
    return [tuple(m) if isinstance(m, list) else tuple(m.split(" ", 1)) for m in model["merges"]]


def _close_merges(kept: set[int], tokens: dict[str, int], by_id: dict[int, str], model: Spec) -> set[int]:
    """Add the parts of every merge that makes a kept token, and theirs, down to characters."""
    prefix = model.get("continuing_subword_prefix") or ""
    parts: dict[str, list[str]] = {}
    for a, b in _pairs(model):
        parts.setdefault(a + b.removeprefix(prefix), []).extend((a, b))
    todo = [by_id[i] for i in kept if i in by_id]
    found = set(kept)
    while todo:
        for token in parts.get(todo.pop(), ()):
            if tokens[token] not in found:
                found.add(tokens[token])
                todo.append(token)
    if model.get("byte_fallback"):
        found |= {i for token, i in tokens.items() if _is_byte(token)}
    return found


def _unigram_needs(tokens: dict[str, int], model: Spec) -> set[int]:
    """The unknown piece, the lowest-scored piece, and the byte pieces where the tokenizer falls back to bytes."""
    scores = [score for _, score in model["vocab"]]
    needs = {scores.index(min(scores))}
    if model.get("unk_id") is not None:
        needs.add(model["unk_id"])
    if model.get("byte_fallback"):
        needs |= {i for token, i in tokens.items() if _is_byte(token)}
    return needs


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def rewrite(spec: Spec, kept: Sequence[int]) -> Spec:
    """The tokenizer with only the ids `kept` (ascending), renumbered 0, 1, ... in that order."""
    new = {old: i for i, old in enumerate(kept)}
    spec = json.loads(json.dumps(spec))
    model = spec["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [entry for i, entry in enumerate(model["vocab"]) if i in new]
        if model.get("unk_id") is not None:
            model["unk_id"] = new[model["unk_id"]]
    else:
        model["vocab"] = {token: new[i] for token, i in model["vocab"].items() if i in new}
    if model["type"] == "BPE":
        vocab, prefix = model["vocab"], model.get("continuing_subword_prefix") or ""
        pairs = [(a, b) for a, b in _pairs(model) if a in vocab and b in vocab]
        model["merges"] = [[a, b] for a, b in pairs if a + b.removeprefix(prefix) in vocab]
    for added in spec["added_tokens"]:
        added["id"] = new[added["id"]]
    if spec.get("padding"):
        spec["padding"]["pad_id"] = new[spec["padding"]["pad_id"]]
    if spec.get("post_processor"):
        _renumber(spec["post_processor"], new)
    return spec


def _renumber(processor: Spec, new: dict[int, int]) -> None:
    """Special token ids inside a post-processor, in place (template, BERT, RoBERTa, or a sequence of such)."""
    for inner in processor.get("processors", ()):
        _renumber(inner, new)
    for name in ("sep", "cls"):
        if isinstance(processor.get(name), list):
            token, old = processor[name]
            processor[name] = [token, new[old]]
    specials = processor.get("special_tokens")
    if isinstance(specials, dict):
        for special in specials.values():
            special["ids"] = [new[i] for i in special["ids"]]


def write_tokenizer(spec: Spec, kept: Sequence[int], out: Path) -> Spec:
    """Rewrite the tokenizer's files, already in `out`, for the ids `kept`; returns the new `tokenizer.json`."""
    new = {old: i for i, old in enumerate(kept)}
    rewritten = rewrite(spec, kept)
    text = json.dumps(rewritten, ensure_ascii=False, indent=2)
    (out / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
    if (out / "vocab.txt").is_file():
        ordered = sorted(tokens_of(rewritten).items(), key=lambda item: item[1])
        (out / "vocab.txt").write_text("".join(f"{token}\n" for token, _ in ordered), encoding="utf-8")
    settings = out / "tokenizer_config.json"
    if settings.is_file():
        content = json.loads(settings.read_text(encoding="utf-8"))
        if "added_tokens_decoder" in content:
            old = content["added_tokens_decoder"]
            content["added_tokens_decoder"] = {str(new[int(i)]): t for i, t in old.items() if int(i) in new}
        settings.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return rewritten


def check_same(old: Spec, new: Spec, kept: Sequence[int], texts: Iterable[str]) -> int:
    """Split `texts` with both tokenizers; those made of kept tokens must give the same ones. Returns how many were.

    Raises StageError for a difference: a guard against a `tokenizer.json` with rules that the proof does not cover.
    """
    from tokenizers import Tokenizer

    before, after = (Tokenizer.from_str(json.dumps(spec)) for spec in (old, new))
    for tokenizer in (before, after):
        tokenizer.no_padding()
        tokenizer.no_truncation()
    inside, same = set(kept), 0
    texts = list(texts)
    for start in range(0, len(texts), 1000):
        some = texts[start : start + 1000]
        pairs = zip(some, before.encode_batch(some), after.encode_batch(some), strict=True)
        for text, one, two in pairs:
            if inside.issuperset(one.ids):
                if one.tokens != two.tokens or one.offsets != two.offsets:
                    raise StageError(
                        f"the pruned tokenizer splits {text[:60]!r} differently",
                        hint="this tokenizer cannot be pruned safely; leave `vocabulary` off",
                    )
                same += 1
    return same


def config_token_ids(config: ModelConfig) -> dict[str, int]:
    """The config's `*_token_id` keys that name one token."""
    return {k: v for k, v in config.items() if k.endswith("_token_id") and type(v) is int and v >= 0}


def always_kept(config: ModelConfig) -> set[int]:
    """Ids that the model itself needs: those its config names; all up to padding where positions count from padding."""
    family = family_of(str(config["model_type"]))
    named = config_token_ids(config)
    padding = named.get("pad_token_id", 0)
    return set(named.values()) | (set(range(padding + 1)) if family.position_offset else set())


def prune_embedding(model: PreTrainedModel, kept: Sequence[int]) -> None:
    """Gather the word embedding's rows `kept`, in place, and renumber the config's token ids.

    Raises StageError where the tokenizer has ids that the embedding has no row for.
    """
    import torch
    from torch import nn

    from edgekit.nn.factored import LowRankEmbedding
    from edgekit.nn.load import backbone

    root, family = backbone(model)
    assert family.word_embeddings is not None
    module = root.get_submodule(family.word_embeddings)
    table = module.codes if isinstance(module, LowRankEmbedding) else module
    assert isinstance(table, nn.Embedding)
    if kept[-1] >= table.num_embeddings:
        raise StageError(
            f"the tokenizer has a token {kept[-1]}, the model only {table.num_embeddings} embeddings",
            hint="tokenizer and model do not belong together",
        )
    new = {old: i for i, old in enumerate(kept)}
    if table.padding_idx is not None and table.padding_idx not in new:
        raise StageError(f"the model pads with id {table.padding_idx}, which its tokenizer does not have")
    rows = torch.tensor(kept, device=table.weight.device)
    table.weight.data = table.weight.data.index_select(0, rows)
    table.num_embeddings = len(kept)
    if table.padding_idx is not None:
        table.padding_idx = new[table.padding_idx]
    for name, old in config_token_ids(model.config.to_dict()).items():
        setattr(model.config, name, new.get(old))
    model.config.vocab_size = len(kept)
