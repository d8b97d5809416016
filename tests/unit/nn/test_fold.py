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
from edgekit.nn.fold import Batch, _Fit, _Parts, fold_layers, unfoldable
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
def test_rows_and_positions_are_the_least_squares(name: str, tiny: Tiny, tmp_path: Path) -> None:
    """Against one dense system with a column for each token and each position."""
    model = load_classifier(folder_of(name, tiny, tmp_path)).double()
    root, family = backbone(model)
    parts = _Parts.of(root, family, 3)
    with torch.no_grad():
        fit = _Fit.of(model, parts, texts(model, count=20))
        found = fit.explained(*fit.solve())
        sums = []
        parts.norm.register_forward_pre_hook(lambda _, inputs: sums.append(inputs[0]))
        for inputs, _ in texts(model, count=20):
            model(**inputs)
    masks = [mask.bool() for _, mask in texts(model, count=20)]
    seen = torch.cat([one[mask] for one, mask in zip(sums, masks, strict=True)])
    design = torch.cat([torch.eye(len(fit.by_id))[fit.ids], torch.eye(len(fit.by_place))[fit.at]], dim=1).double()
    best = design @ torch.linalg.lstsq(design, seen, driver="gelsd").solution
    left, variance = (seen - best).square().sum(), (seen - seen.mean(0)).square().sum()
    assert found == pytest.approx(float(1 - left / variance), abs=1e-4)
    assert 0 < found < 1


def test_a_folded_model_is_nearer_than_one_without_those_layers(tiny: Tiny) -> None:
    folder = tiny("bert", layers=3)
    folded, dropped, intact = (load_classifier(folder) for _ in range(3))
    fold_layers(folded, 2, texts(folded, count=60), SPECIAL)
    dropped.bert.encoder.layer = dropped.bert.encoder.layer[2:]
    ids = torch.randint(3, intact.config.vocab_size, (64, 12), generator=torch.Generator().manual_seed(5))
    errors = [float((logits(model, ids) - logits(intact, ids)).square().mean()) for model in (folded, dropped)]
    assert errors[0] < 0.7 * errors[1]


def test_token_types_still_differ_as_they_did(tiny: Tiny) -> None:
    model = load_classifier(tiny("bert", layers=2))
    before = model.bert.embeddings.token_type_embeddings.weight.detach().clone()
    fold_layers(model, 1, texts(model), SPECIAL)
    after = model.bert.embeddings.token_type_embeddings.weight
    assert torch.allclose(after[1] - after[0], before[1] - before[0])
    assert not after[0].any()  # the rows and positions were read with it


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
