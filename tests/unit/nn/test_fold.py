"""The first layers as tables: exact where they make of a token what it is, and the least squares where they do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekit.errors import StageError
from edgekit.model_config import read_config
from edgekit.nn.families import family_of
from edgekit.nn.fold import (
    PLACES,
    PRIOR,
    WORDS,
    Batch,
    _Parts,
    _Seen,
    _with_unseen,
    fold_layers,
    unfoldable,
)
from edgekit.nn.layers import backbone, encoder_layers
from edgekit.nn.load import load_classifier
from tests.tiny_architectures import write_architecture

Tiny = Callable[..., Path]
FOLDABLE = ["bert", "roberta", "distilbert", "mpnet", "xlm-roberta"]
SPECIAL = ([0], [2])


def folder_of(name: str, tiny: Tiny, tmp_path: Path) -> Path:
    if name in ("bert", "roberta", "distilbert", "electra"):
        return tiny(name, layers=3)
    return write_architecture(tmp_path / name, name, layers=3)


def texts(model: Any, count: int = 6, length: int = 12, seed: int = 0, most: int = 0) -> Iterator[Batch]:
    """Random tokens, the last ones of some rows padding."""
    dice = torch.Generator().manual_seed(seed)
    most = most or model.config.vocab_size
    for _ in range(count):
        ids = torch.randint(3, most, (8, length), generator=dice)
        mask = torch.ones_like(ids)
        mask[::3, -4:] = 0
        yield {"input_ids": ids, "attention_mask": mask}, mask


def forget_context(model: Any, layers: int) -> None:
    """The first layers no longer attend to anything, and tokens have no position."""
    root, family = backbone(model)
    with torch.no_grad():
        for layer in encoder_layers(model)[:layers]:
            layer.get_submodule(family.attention_output).weight.zero_()
        root.get_submodule(family.position_embeddings or "").weight.zero_()


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


@pytest.mark.parametrize("name", FOLDABLE)
@pytest.mark.parametrize("count", [1, 2])
def test_layers_that_look_at_each_token_alone_lose_nothing(name: str, count: int, tiny: Tiny, tmp_path: Path) -> None:
    """Of tokens that no text has, too."""
    folder = folder_of(name, tiny, tmp_path)
    model, intact = (load_classifier(folder).double() for _ in range(2))
    for one in (model, intact):
        forget_context(one, count)
    half = model.config.vocab_size // 2
    done = fold_layers(model, count, texts(model, most=half), SPECIAL)
    assert done.explained == pytest.approx(1)
    assert (
        len(encoder_layers(model))
        == 3 - count
        == getattr(model.config, family_of(model.config.model_type).config_layers)
    )
    ids = torch.randint(3, model.config.vocab_size, (4, 9), generator=torch.Generator().manual_seed(1))
    assert int(ids.max()) >= half
    assert torch.allclose(logits(model, ids), logits(intact, ids), atol=1e-9)


@pytest.mark.parametrize("name", FOLDABLE)
def test_the_tables_are_the_least_squares(name: str, tiny: Tiny, tmp_path: Path) -> None:
    """Against one dense system with a column for each row of each table; some tokens are of another type."""
    model = load_classifier(folder_of(name, tiny, tmp_path)).double()
    typed = name == "bert"
    root, family = backbone(model)
    parts = _Parts.of(root, family, 3)
    given = list(texts(model, count=20))
    for inputs, mask in given if typed else ():
        inputs["token_type_ids"] = (torch.arange(len(mask)) % 2)[:, None].expand_as(mask)  # type: ignore[index]
    with torch.no_grad():
        seen = _Seen.of(model, parts, given)
        tables = seen.solve()
        sums: list[torch.Tensor] = []
        parts.norm.register_forward_pre_hook(lambda _, inputs: sums.append(inputs[0]))
        for inputs, _ in given:
            model(**inputs)
    assert set(tables) == {WORDS, PLACES, "kinds"} - ({"kinds"} if name in ("distilbert", "mpnet") else set())
    added = torch.cat([one[mask.bool()] for one, (_, mask) in zip(sums, given, strict=True)])
    design = torch.cat([torch.eye(len(table))[seen.ids[key]] for key, table in tables.items()], dim=1).double()
    best = design @ torch.linalg.lstsq(design, added, driver="gelsd").solution
    found = sum(table[seen.ids[key]] for key, table in tables.items())
    least, left = ((added - fit).square().sum() for fit in (best, found))
    assert float(left) == pytest.approx(float(least), rel=1e-3)
    assert not typed or not tables["kinds"][1].allclose(tables["kinds"][0])


def test_rows_that_were_seen_little_follow_from_the_token_alone() -> None:
    dice = torch.Generator().manual_seed(0)
    alone, wrong = (torch.randn(400, 6, generator=dice, dtype=torch.float64) for _ in range(2))
    true = alone @ torch.randn(6, 6, generator=dice, dtype=torch.float64) + 3
    times = torch.tensor([1000] * 300 + [0] * 50 + [2] * 50)
    rows = torch.where(times[:, None] >= 1000, true, wrong)
    found = _with_unseen(rows, times, alone)
    assert torch.allclose(found[:300], true[:300], atol=0.02)
    guess = found[300:350]
    assert torch.allclose(guess, true[300:350], atol=0.2)  # the ridge pulls a little towards the identity
    mixed = (2 * wrong[350:] + PRIOR * true[350:]) / (2 + PRIOR)
    assert torch.allclose(found[350:], mixed, atol=0.2)


def test_a_few_known_rows_move_all_and_turn_none() -> None:
    alone = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([9] + [0] * 19)
    rows = torch.where(times[:, None] > 0, alone + 1, torch.zeros(20, 6))
    assert torch.allclose(_with_unseen(rows, times, alone), alone + 1, atol=1e-5)
    assert torch.allclose(_with_unseen(rows * 0, times * 0, alone), alone)  # of none nothing is known


def test_positions_that_no_text_has_are_as_the_last_that_one_has(tiny: Tiny) -> None:
    model = load_classifier(tiny("bert", layers=2))
    fold_layers(model, 1, texts(model, length=14), SPECIAL)
    places = model.bert.embeddings.position_embeddings.weight
    assert torch.allclose(places[14:], places[4:14].mean(0).expand_as(places[14:]), atol=1e-6)
    assert not torch.allclose(places[13], places[12])


def test_a_folded_model_is_nearer_than_one_without_those_layers(tiny: Tiny) -> None:
    folder = tiny("bert", layers=3)
    folded, dropped, intact = (load_classifier(folder) for _ in range(3))
    fold_layers(folded, 2, texts(folded, count=60), SPECIAL)
    dropped.bert.encoder.layer = dropped.bert.encoder.layer[2:]
    ids = torch.randint(3, intact.config.vocab_size, (64, 12), generator=torch.Generator().manual_seed(5))
    errors = [float((logits(model, ids) - logits(intact, ids)).square().mean()) for model in (folded, dropped)]
    assert errors[0] < 0.7 * errors[1]


def test_texts_without_special_tokens_are_read_too(tiny: Tiny) -> None:
    model, other = (load_classifier(tiny("bert", layers=2)) for _ in range(2))
    fold_layers(model, 1, texts(model), ([], []))
    fold_layers(other, 1, texts(other), SPECIAL)
    words = [one.bert.embeddings.word_embeddings.weight for one in (model, other)]
    assert words[0].isfinite().all() and not torch.allclose(*words)


def test_a_deberta_with_positions_and_no_token_types_can_be_folded(tmp_path: Path) -> None:
    folder = write_architecture(tmp_path / "deberta", "deberta-v2", position_biased_input=True)
    model = load_classifier(folder)
    assert 0 < fold_layers(model, 1, texts(model), SPECIAL).explained < 1


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("albert", "share their weights"),
        ("modernbert", "no norm behind each layer"),
        ("electra", "not as wide as its hidden state"),
        ("deberta-v2", "no table of positions"),
        ("vit", "reads pictures"),
    ],
)
def test_where_layers_are_no_table_it_is_refused(name: str, what: str, tiny: Tiny, tmp_path: Path) -> None:
    if name == "vit":
        assert what in unfoldable({"model_type": "vit"})
        return
    folder = folder_of(name, tiny, tmp_path)
    assert what in unfoldable(read_config(folder))
    model = load_classifier(folder)
    with pytest.raises(StageError, match=what):
        fold_layers(model, 1, texts(model), SPECIAL)
