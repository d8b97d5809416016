"""Recase: an uncased encoder sees which words begin with a capital letter, at no cost when it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import Field

from edgekit.artifact import Artifact, Facts
from edgekit.errors import StageError
from edgekit.stages.base import Config, Context, Outcome, kind_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["VERSION", "Recase", "recase"]

VERSION = 1
SPECIAL = {  # BERT's names, and MPNet's
    "unk_token": ("[UNK]", "<unk>"),
    "pad_token": ("[PAD]", "<pad>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
}


class Recase(Config):
    """Options of the recase stage."""

    shift: float = Field(
        0.4,
        gt=0,
        le=2,
        description="how far the rows of capitalized tokens start from those of the small ones, in lengths of a mean "
        "row; in one direction, so that a model learns it once for all words",
    )
    seed: int = Field(0, ge=0, description="which direction")


def recase(source: Artifact, config: Recase, out: Path, context: Context) -> Outcome:
    """Write `source` with a second row for each token that can start a word, for where it starts with a capital letter.

    The model has to be fine-tuned afterwards: it does not know yet what the direction means. Raises StageError for a
    tokenizer that tells case already or is of another kind (`nn.letter_case`), and for a token table in thin matrices.
    """
    import torch
    from torch import nn

    from edgekit.nn.device import seeded
    from edgekit.nn.layers import backbone
    from edgekit.nn.letter_case import give_case
    from edgekit.nn.load import copy_tokenizer, is_trained, load_classifier, read_edits, save_model
    from edgekit.nn.vocabulary import load_spec

    kind, edits = kind_of(source, context), read_edits(source.path)
    with seeded(config.seed, "cpu"):  # a head that is not there yet is drawn at random
        model = load_classifier(source.path, kind=kind)
    root, family = backbone(model)
    if not family.word_embeddings:
        raise StageError(f"{model.config.model_type} reads pictures: it has no letters", hint="leave the step out")
    table = root.get_submodule(family.word_embeddings)
    if not isinstance(table, nn.Embedding):
        raise StageError("the token table is two thin matrices", hint="put recase before factorize")
    copy_tokenizer(source.path, out)
    cased = give_case(load_spec(out))
    if len(table.weight) < cased.first:
        what = f"the tokenizer has tokens up to {cased.first - 1:,}, the model only {len(table.weight):,} embeddings"
        raise StageError(what, hint="tokenizer and model do not belong together")
    rows = table.weight.data[: cased.first]  # some models have rows to spare
    moved = rows[torch.tensor(cased.origins)] + config.shift * _direction(rows, config.seed)
    table.weight.data = torch.cat([rows, moved])
    table.num_embeddings = model.config.vocab_size = cased.size
    _write_tokenizer(cased.spec, out)
    headless = edits.empty and not is_trained(source.path, kind)
    save_model(cast("PreTrainedModel", root) if headless else model, out, tokenizer_from=out, edits=edits)
    summary = f"{len(cased.origins):,} of {cased.first:,} tokens with a capital letter too"
    facts = Facts(summary=summary, touched=(family.word_embeddings,), numbers={"tokens_added": len(cased.origins)})
    return Outcome("hf", facts, source.task or context.task)


def _direction(rows: torch.Tensor, seed: int) -> torch.Tensor:
    """Drawn at random, as long as a mean row."""
    import torch

    drawn = torch.randn(rows.shape[1], generator=torch.Generator().manual_seed(seed))
    direction: torch.Tensor = drawn / drawn.norm() * rows.norm(dim=1).mean()
    return direction


def _write_tokenizer(spec: dict[str, Any], out: Path) -> None:
    """`tokenizer.json` alone: what reads `vocab.txt` or is a `BertTokenizer` does not know the rules in it. Special
    tokens that such a class names by itself are named in the settings."""
    from edgekit.nn.vocabulary import tokens_of

    (out / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    (out / "vocab.txt").unlink(missing_ok=True)
    settings, tokens = out / "tokenizer_config.json", tokens_of(spec)
    content = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    content |= {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False}
    for role, names in SPECIAL.items():
        known = [name for name in names if name in tokens]
        if known and content.get(role) is None:
            content[role] = known[0]
    settings.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
