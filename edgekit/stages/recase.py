"""Recase: an uncased encoder sees which words begin with a capital letter, at no cost when it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from edgekit.artifact import Artifact, Facts
from edgekit.errors import StageError
from edgekit.stages.base import Config, Context, Outcome, kind_of

if TYPE_CHECKING:
    import torch

__all__ = ["VERSION", "Recase", "recase"]

VERSION = 1


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

    from edgekit.nn.layers import backbone
    from edgekit.nn.letter_case import give_case
    from edgekit.nn.load import copy_tokenizer, load_classifier, read_edits, save_model
    from edgekit.nn.vocabulary import load_spec, tokens_of

    model = load_classifier(source.path, kind=kind_of(source, context))
    root, family = backbone(model)
    if not family.word_embeddings:
        raise StageError(f"{model.config.model_type} reads pictures: it has no letters", hint="leave the step out")
    table = root.get_submodule(family.word_embeddings)
    if not isinstance(table, nn.Embedding):
        raise StageError("the token table is two thin matrices", hint="put recase before factorize")
    copy_tokenizer(source.path, out)
    spec, origins = give_case(load_spec(out))
    first = len(tokens_of(spec)) - len(origins)
    if len(table.weight) < first:
        what = f"the tokenizer has {first:,} tokens, the model only {len(table.weight):,} embeddings"
        raise StageError(what, hint="tokenizer and model do not belong together")
    rows = table.weight.data[:first]  # some models have rows to spare
    moved = rows[torch.tensor(origins)] + config.shift * _direction(rows, config.seed)
    table.weight.data = torch.cat([rows, moved])
    table.num_embeddings = model.config.vocab_size = len(table.weight)
    _write_tokenizer(spec, out)
    save_model(model, out, tokenizer_from=out, edits=read_edits(source.path))
    summary = f"{len(origins):,} of {first:,} tokens with a capital letter too"
    facts = Facts(summary=summary, touched=(family.word_embeddings,), numbers={"tokens_added": len(origins)})
    return Outcome("hf", facts, source.task or context.task)


def _direction(rows: torch.Tensor, seed: int) -> torch.Tensor:
    """Drawn at random, as long as a mean row."""
    import torch

    drawn = torch.randn(rows.shape[1], generator=torch.Generator().manual_seed(seed))
    direction: torch.Tensor = drawn / drawn.norm() * rows.norm(dim=1).mean()
    return direction


def _write_tokenizer(spec: dict[str, object], out: Path) -> None:
    """`tokenizer.json` alone: what reads `vocab.txt` or is a `BertTokenizer` does not know the rules in it."""
    (out / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    (out / "vocab.txt").unlink(missing_ok=True)
    settings = out / "tokenizer_config.json"
    content = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    content |= {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False}
    settings.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
