from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgekit.artifact import Task
from edgekit.data.table import Table
from edgekit.errors import StageError
from edgekit.nn.calibration import Calibration, calibrate, input_moments
from edgekit.nn.factored import LowRankEmbedding, LowRankLinear, dense_weight, densify
from edgekit.nn.load import load_classifier
from edgekit.nn.lowrank import Spectrum, factorize_module, ranks_by_budget, ranks_by_energy, spectrum
from edgekit.nn.surgery import part_path
from edgekit.nn.weighting import Weighting, fisher_weightings, frequency_weighting, moment_weighting, smooth

LABELS = ("LABEL_0", "LABEL_1", "LABEL_2")
TEXTS = ("my card is lost", "where is my money?", "please top up", "cash rate not arrived", "transfer waiting when")


def calibration(folder: Path, batch_size: int = 8) -> Calibration:
    table = Table(TEXTS * 4, labels=("LABEL_0", "LABEL_2", "LABEL_1", "LABEL_0", "LABEL_1") * 4)
    task = Task(labels=LABELS, max_length=16)
    return calibrate(folder, table, task, model_labels=LABELS, count=20, batch_size=batch_size, seed=0)


@settings(max_examples=25, deadline=None)
@given(out=st.integers(2, 12), inner=st.integers(2, 30), seed=st.integers(0, 99), kind=st.sampled_from("idf"))
def test_error_is_what_the_spectrum_says_and_optimal(out: int, inner: int, seed: int, kind: str) -> None:
    """|(W - W_r) M|^2 equals the discarded energy (Eckart-Young), for identity, diagonal and full weightings."""
    torch.manual_seed(seed)
    linear = nn.Linear(inner, out)
    root = {"i": None, "d": torch.rand(inner).double(), "f": torch.randn(inner, inner).double().tril()}[kind]
    full = torch.eye(inner).double() if root is None else root.diag() if kind == "d" else root
    found = spectrum("x", linear, Weighting(root))
    for rank in range(1, min(out, inner) + 1):
        made = factorize_module(linear, found, rank)
        left = (dense_weight(linear) - dense_weight(made)).double() @ full
        total = float((dense_weight(linear).double() @ full).square().sum())
        assert float(left.square().sum()) / total == pytest.approx(found.error(rank), abs=1e-5)
    singular = torch.linalg.svdvals(dense_weight(linear).double() @ full).square()
    torch.testing.assert_close(found.energy, singular, rtol=1e-6, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(out=st.integers(2, 10), inner=st.integers(2, 20), seed=st.integers(0, 99))
def test_with_outputs_weighed_too_the_spectrum_says_the_error(out: int, inner: int, seed: int) -> None:
    """|L (W - W_r) M|^2 equals the discarded energy, which is the least there is."""
    torch.manual_seed(seed)
    linear = nn.Linear(inner, out)
    left, right = torch.randn(out, out).double(), torch.randn(inner, inner).double().tril()
    left = left @ left.T + torch.eye(out).double()
    found = spectrum("x", linear, Weighting(right, outputs=left))
    for rank in range(1, min(out, inner) + 1):
        made = factorize_module(linear, found, rank)
        lost = left @ (dense_weight(linear) - dense_weight(made)).double() @ right
        total = float((left @ dense_weight(linear).double() @ right).square().sum())
        assert float(lost.square().sum()) / total == pytest.approx(found.error(rank), abs=1e-5)
    singular = torch.linalg.svdvals(left @ dense_weight(linear).double() @ right).square()
    torch.testing.assert_close(found.energy, singular, rtol=1e-6, atol=1e-9)


def test_embedding_at_full_rank_is_exact_and_pads() -> None:
    table = nn.Embedding(50, 8, padding_idx=0)
    made = factorize_module(table, spectrum("x", table, Weighting()), 8)
    assert isinstance(made, LowRankEmbedding) and made.padding_idx == 0
    ids = torch.tensor([[0, 3, 49]])
    torch.testing.assert_close(made(ids), table(ids), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(densify(made)(ids), table(ids), atol=1e-5, rtol=1e-5)


def test_frequent_tokens_are_kept_best(tiny: Callable[..., Path]) -> None:
    folder = tiny("bert")
    model = load_classifier(folder)
    table = model.bert.embeddings.word_embeddings
    data = calibration(folder)
    seen = torch.tensor(sorted({i for row in data.encoded.ids for i in row}))

    def error(weighting: Weighting) -> float:
        made = factorize_module(table, spectrum("x", table, weighting), 8)
        return float((dense_weight(made)[seen] - dense_weight(table)[seen]).square().sum())

    assert error(frequency_weighting(data, table.num_embeddings)) < 0.7 * error(Weighting())


def test_whitening_beats_svd_on_the_output(any_family: Path) -> None:
    model = load_classifier(any_family)
    path = part_path(model, 1, "ffn_down")
    linear = model.get_submodule(path)
    data = calibration(any_family)
    moments = input_moments(model, [path], data)[path]

    def output_error(weighting: Weighting) -> float:
        made = factorize_module(linear, spectrum(path, linear, weighting), 4, weighting.mean)
        lost = (dense_weight(linear) - dense_weight(made)).double()
        shift = linear.bias.detach().double() - made.bias.detach().double() + lost @ moments.mean  # error of the mean
        return float(((lost @ moments.covariance) * lost).sum() + shift.square().sum())

    whitened = output_error(moment_weighting(moments, has_bias=True))
    second = output_error(moment_weighting(moments, has_bias=False))
    assert whitened < 0.9 * output_error(Weighting())
    assert whitened <= second


def test_whitening_survives_a_singular_covariance() -> None:
    from edgekit.nn.calibration import Moments

    x = torch.randn(3, 10, dtype=torch.float64)
    found = moment_weighting(Moments(x.mean(0), x.T @ x / 3, 3), has_bias=True)
    assert found.root is not None and torch.isfinite(found.root).all()
    linear = nn.Linear(10, 6)
    made = factorize_module(linear, spectrum("x", linear, found), 2, found.mean)
    torch.testing.assert_close(made(x.float()), linear(x.float()), atol=1e-3, rtol=1e-3)  # 3 centred points span 2


def test_fisher_weights_are_squared_gradients_per_example(any_family: Path) -> None:
    model = load_classifier(any_family)
    from edgekit.nn.load import backbone

    _, family = backbone(model)
    paths = [part_path(model, 0, "ffn_up"), f"{family.backbone}.{family.word_embeddings}"]
    data = calibration(any_family)
    found = fisher_weightings(model, paths, data)
    linear, table = (model.get_submodule(path).weight for path in paths)
    rows, columns = torch.zeros(table.shape[0]), torch.zeros(linear.shape[1])
    for inputs, measure in Calibration(data.examples, data.labelled, 1):
        loss = measure(model(**inputs).logits)
        by_linear, by_table = torch.autograd.grad(loss, [linear, table])
        columns += by_linear.square().sum(0)
        rows += by_table.square().sum(1)
    padding = model.get_submodule(paths[1]).padding_idx
    rows[padding] = 0
    for path, wanted in zip(paths, (columns, rows), strict=True):
        root = found[path].root
        assert root is not None
        torch.testing.assert_close(root.square(), smooth(wanted.double()), rtol=2e-3, atol=1e-9)


def test_ranks_by_energy() -> None:
    found = Spectrum("x", torch.eye(4), torch.eye(4), torch.tensor([8.0, 4.0, 2.0, 2.0]), 16, 8)
    assert ranks_by_energy([found], 0.5, 1) == [1]
    assert ranks_by_energy([found], 0.51, 1) == [2]
    assert ranks_by_energy([found], 0.51, 3) == [3]
    assert ranks_by_energy([found], 1.0, 3) == [4]


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(4, 40), st.integers(4, 40)), min_size=1, max_size=5),
    budget=st.floats(0.05, 0.95),
    unit=st.integers(1, 4),
    seed=st.integers(0, 50),
)
def test_a_budget_is_kept(shapes: list[tuple[int, int]], budget: float, unit: int, seed: int) -> None:
    torch.manual_seed(seed)
    spectra = [spectrum(str(i), nn.Linear(a, b), Weighting()) for i, (a, b) in enumerate(shapes)]
    try:
        ranks = ranks_by_budget(spectra, budget, unit)
    except StageError:
        assert sum(unit * s.per_rank for s in spectra) > budget * sum(s.size for s in spectra)
        return
    spent = sum(min(r * s.per_rank, s.size) for r, s in zip(ranks, spectra, strict=True))
    assert spent <= budget * sum(s.size for s in spectra)
    assert all(r >= min(unit, len(s.energy)) for r, s in zip(ranks, spectra, strict=True))


def test_a_budget_goes_where_the_energy_is() -> None:
    flat = Spectrum("flat", torch.eye(16), torch.eye(16), torch.ones(16), 256, 32)
    steep = Spectrum("steep", torch.eye(16), torch.eye(16), torch.tensor([100.0, 1, *[0.0] * 14]), 256, 32)
    ranks = ranks_by_budget([flat, steep], 0.5, 1)
    assert ranks[1] <= 2 and ranks[0] >= 5


def test_a_low_rank_layer_can_be_made_thinner() -> None:
    layer = LowRankLinear(20, 20, 6)
    found = spectrum("x", layer, Weighting())
    assert found.size == 6 * 40 and not found.shrinks(6) and found.shrinks(5)
    assert float(found.energy[6:].sum()) < 1e-8
    thinner = factorize_module(layer, found, 6)
    x = torch.randn(3, 20)
    torch.testing.assert_close(thinner(x), layer(x), atol=1e-5, rtol=1e-4)
