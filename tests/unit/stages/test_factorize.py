from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from tokenizers import Tokenizer

from edgekit.artifact import Artifact, Task
from edgekit.data.table import Table
from edgekit.errors import StageError
from edgekit.nn.load import load_classifier, read_edits
from edgekit.shapes import next_shape, shape_of
from edgekit.stages.base import Context, Outcome
from edgekit.stages.factorize import Factorize, factorize
from edgekit.stages.trim import Trim
from tests.tiny_architectures import ARCHITECTURES, write_architecture

LABELS = ("LABEL_0", "LABEL_1", "LABEL_2")
TEXTS = ("my card is lost", "where is my money?", "please top up", "cash rate not arrived", "transfer waiting when")
TRAIN = Table(TEXTS * 4, labels=("LABEL_0", "LABEL_2", "LABEL_1", "LABEL_0", "LABEL_1") * 4, name="train")
TASK = Task(labels=LABELS, max_length=16)
Tiny = Callable[..., Path]


def factorized(folder: Path, out: Path, **options: object) -> Outcome:
    out.mkdir()
    source = Artifact.outside(folder, Task(labels=LABELS, max_length=16))
    return factorize(source, Factorize(**{"round_to": 2, **options}), out, Context(data={"train": TRAIN}))


def logits(folder: Path) -> torch.Tensor:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = load_classifier(folder)
    with torch.inference_mode():
        return torch.cat([model(input_ids=torch.tensor([tokenizer.encode(t).ids])).logits for t in TEXTS])


@pytest.mark.parametrize("method", ["svd", "fwsvd", "whitened"])
def test_every_method_on_every_family(any_family: Path, tmp_path: Path, method: str) -> None:
    modules = ("embedding", "attention", "ffn")
    facts = factorized(any_family, tmp_path / "out", method=method, modules=modules, budget=0.6).facts
    numbers = facts.numbers
    assert facts.changed and numbers["factorized"] + len(facts.skipped) == 13
    model = load_classifier(tmp_path / "out")
    assert numbers["parameters_after"] == sum(p.numel() for p in model.parameters()) < numbers["parameters_before"]
    assert 0 < numbers["error_mean"] <= numbers["error_max"] < 1
    assert len(read_edits(tmp_path / "out").low_rank) == numbers["factorized"]


def test_whitened_answers_are_closer_than_those_of_svd(any_family: Path, tmp_path: Path) -> None:
    """At the same ranks: the energy that each matrix keeps differs, the budget and the shapes do not."""
    errors = {}
    for method in ("svd", "whitened"):
        folder = tmp_path / method
        factorized(any_family, folder, method=method, modules=("ffn",), budget=0.57, round_to=12, versus="none")
        errors[method] = float((logits(folder) - logits(any_family)).square().mean())
    assert errors["whitened"] < errors["svd"]


@pytest.mark.parametrize("name", sorted({*ARCHITECTURES} - {"albert"}))
def test_curvature_on_attention_and_ffn_of_every_architecture(tmp_path: Path, name: str) -> None:
    folder, out = write_architecture(tmp_path / name, name), tmp_path / "out"
    out.mkdir()
    config = Factorize(modules=("attention", "ffn"), method="curvature", versus="none", budget=0.6, round_to=2)
    outcome = factorize(Artifact.outside(folder, TASK), config, out, Context(data={"train": TRAIN}, task=TASK))
    assert outcome.facts.changed
    assert read_edits(out).low_rank


def test_layers_that_share_their_weights(tmp_path: Path) -> None:
    """None can be repaired alone, nor pruned alone to be compared with; the output of all of them can be kept."""
    folder = write_architecture(tmp_path / "albert", "albert", layers=4)
    source, context = Artifact.outside(folder, TASK), Context(data={"train": TRAIN}, task=TASK)
    shape, config = shape_of(source, TASK), Factorize(modules=("ffn",), budget=0.5, round_to=2)
    (tmp_path / "out").mkdir()
    facts = factorize(source, config, tmp_path / "out", context).facts
    assert facts.changed
    assert "not compared with pruning: the layers share their weights" in facts.warnings[0]
    assert next_shape(shape, "factorize", config, TASK, folder, {})[1] == []
    for change in ({"method": "curvature"}, {"versus": "pruning"}):
        refused = config.model_copy(update=change)
        with pytest.raises(StageError, match="share their weights"):
            factorize(source, refused, tmp_path / "out", context)
        assert "share their weights" in next_shape(shape, "factorize", refused, TASK, folder, {})[1][0].what
    [problem] = next_shape(shape, "trim", Trim(), TASK, folder, {})[1]
    assert problem.hint == "use prune, which cuts all of them alike"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "curvature"}, "curvature is for attention and ffn"),
        ({"versus": "pruning"}, "the embedding cannot be compared with pruning"),
        ({"modules": ("ffn", "embedding"), "versus": "pruning"}, "the embedding cannot be compared with pruning"),
        ({"modules": ("ffn",), "costs": "costs.json", "versus": "none"}, "which versus=none turns off"),
    ],
)
def test_options_that_rule_each_other_out(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Factorize.model_validate(options)


def test_energy_sets_ranks_layer_by_layer(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny("bert")
    for energy in (0.3, 0.7):
        options = {"rank_by": "energy", "energy": energy, "method": "svd", "modules": ("ffn",), "round_to": 1}
        options["versus"] = "none"
        numbers = factorized(folder, tmp_path / str(energy), **options).facts.numbers
        assert numbers["error_max"] <= 1 - energy + 1e-9


def test_a_matrix_that_would_not_shrink_is_skipped(tiny: Tiny, tmp_path: Path) -> None:
    options = {"rank_by": "energy", "energy": 1.0, "modules": ("attention",), "method": "svd"}
    facts = factorized(tiny("bert"), tmp_path / "out", **options).facts
    assert not facts.changed and len(facts.skipped) == 8
    assert "would not be smaller" in facts.skipped[0].reason
    assert read_edits(tmp_path / "out").empty


def test_it_can_be_applied_again(tiny: Tiny, tmp_path: Path) -> None:
    factorized(tiny("bert"), tmp_path / "a", modules=("embedding", "ffn"), budget=0.8)
    factorized(tmp_path / "a", tmp_path / "b", modules=("embedding", "ffn"), budget=0.6)
    first, second = (read_edits(tmp_path / name).low_rank for name in "ab")
    assert first.keys() <= second.keys()
    assert all(second[path] <= first[path] for path in first) and second != first
    facts = factorized(tmp_path / "b", tmp_path / "c", modules=("ffn",), rank_by="energy", energy=1.0).facts
    assert not facts.changed
    torch.testing.assert_close(logits(tmp_path / "c"), logits(tmp_path / "b"))


def test_fwsvd_needs_a_trained_classifier(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny("bert", head=False)
    with pytest.raises(StageError, match="trained classifier"):
        factorized(folder, tmp_path / "out", method="fwsvd")


def test_a_budget_that_is_too_small_says_what_would_do(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="rank 16 for every layer needs") as caught:
        factorized(tiny("bert"), tmp_path / "out", budget=0.01, round_to=16)
    assert "round_to" in caught.value.hint


def test_svd_needs_no_data(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    source = Artifact.outside(tiny("bert"), None)
    assert factorize(source, Factorize(method="svd", round_to=4), tmp_path / "out", Context()).facts.changed
    (tmp_path / "no").mkdir()
    with pytest.raises(StageError, match="train data"):
        factorize(source, Factorize(round_to=4), tmp_path / "no", Context())


def test_every_option_has_a_default_and_a_help() -> None:
    schema = Factorize.model_json_schema()
    assert "required" not in schema
    assert all(field.get("description") for field in schema["properties"].values())
