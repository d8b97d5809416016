"""What a plan finds before anything runs: of the tokenizer, of labels, of heads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.api import plan, run_stage
from edgekit.errors import ModelError, PlanError
from edgekit.library import find_recipe
from edgekit.nn.load import load_classifier
from edgekit.plan import Plan
from edgekit.stages.export import Export
from tests.conftest import write_tiny
from tests.slow_tokenizers import write_slow


def write_labels(path: Path, labels: list[str]) -> str:
    path.write_text("text,label\n" + "".join(f"my card is lost,{label}\n" for label in labels), encoding="utf-8")
    return str(path)


def plan_of(recipe: str, model: Path, labels: list[str], **params: str) -> Plan:
    test = write_labels(model.parent / "test.csv", labels)
    given = {"model": str(model), "test": test, "max_length": "32", **params}
    return plan(recipe, given, store=model.parent / "store")


def refused(recipe: str, model: Path, labels: list[str], **params: str) -> str:
    with pytest.raises(PlanError) as caught:
        plan_of(recipe, model, labels, **params)
    return str(caught.value)


def test_a_package_that_the_tokenizer_takes_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.tokenizer_files._installed", lambda name: False)
    text = refused("quantize-only", write_slow(tmp_path / "deberta", "deberta-v2"), ["LABEL_0"])
    assert "making one of its spm.model takes sentencepiece and protobuf (pip install sentencepiece protobuf)" in text


def test_a_slow_tokenizer_is_no_obstacle(tmp_path: Path) -> None:
    folder = write_slow(tmp_path / "albert", "albert")
    assert [step.id for step in plan_of("quantize-only", folder, ["LABEL_0"]).steps][:2] == ["model-onnx", "onnx-f32"]


def unmapped(folder: Path) -> Path:
    """A BERT whose tokenizer is a unigram one that normalizes by NFKC, without SentencePiece's character map."""
    from tests.tiny_architectures import unigram_spec

    write_tiny(folder, "bert")
    roles = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    spec = unigram_spec(roles) | {"normalizer": {"type": "NFKC"}}
    (folder / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    (folder / "vocab.txt").unlink()
    return folder


def test_an_optional_gguf_of_a_tokenizer_that_llama_cpp_has_not_is_left_out(tmp_path: Path) -> None:
    made = plan_of("quantize-only", unmapped(tmp_path / "bert"), ["LABEL_0"])
    assert made.recipe.exports == ("onnx-int8", "onnx-int4")
    [note] = [note for note in made.notes if "gguf-f16 and gguf-q8 are left out" in note]
    assert "without SentencePiece's character map cannot be expressed in GGUF" in note


def test_a_gguf_that_is_not_optional_is_refused_for_its_tokenizer(tmp_path: Path) -> None:
    folder, recipe = unmapped(tmp_path / "bert"), tmp_path / "own.yaml"
    recipe.write_text(find_recipe("quantize-only").read_text().replace("optional: true, ", ""))
    text = refused(str(recipe), folder, ["LABEL_0"])
    assert "step gguf-f16" in text
    assert "without SentencePiece's character map" in text


def test_a_damaged_tokenizer_is_told(tmp_path: Path) -> None:
    folder = unmapped(tmp_path / "bert")
    (folder / "tokenizer.json").write_text("{")
    assert "damaged" in refused("quantize-only", folder, ["LABEL_0"])


def test_numbers_are_the_labels_of_a_head_without_names(tmp_path: Path) -> None:
    made = plan_of("quantize-only", write_tiny(tmp_path / "bert", "bert"), ["0", "2", "1", "2"])
    assert made.task.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    [told] = [note for note in made.notes if "labels are numbers" in note]
    assert told.endswith("taken for those of the model's head: 0 is LABEL_0, 1 is LABEL_1, 2 is LABEL_2")


def test_a_head_with_the_two_labels_that_transformers_does_not_write_down(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "bert", "bert", labels=2)
    assert "id2label" not in json.loads((folder / "config.json").read_text())
    assert plan_of("quantize-only", folder, ["0", "1"]).task.labels == ("LABEL_0", "LABEL_1")


@pytest.mark.parametrize("labels", [["0", "3"], ["-1", "0"], ["lost", "0"], ["01", "0"]])
def test_labels_that_the_head_does_not_know_are_refused_before_anything_runs(tmp_path: Path, labels: list[str]) -> None:
    text = refused("quantize-only", write_tiny(tmp_path / "bert", "bert"), labels)
    assert "that the model's head does not know: '" in text
    assert "it knows 'LABEL_0', 'LABEL_1', 'LABEL_2'" in text
    assert "id2label" in text


def test_names_that_the_head_does_not_know_are_refused_in_encoder_int8(tmp_path: Path) -> None:
    folder = named(write_tiny(tmp_path / "bert", "bert"), "lost", "rate", "top")
    calibration = write_labels(tmp_path / "calibration.csv", ["any", "label"])
    text = refused("encoder-int8", folder, ["0", "1"], calibration=calibration)
    assert "2 label(s) that the model's head does not know: '0', '1'; it knows 'lost', 'rate', 'top'" in text
    assert plan_of("encoder-int8", folder, ["top", "lost"], calibration=calibration).steps


def named(folder: Path, *labels: str) -> Path:
    """The folder with other names of its head's labels."""
    return edited(folder, id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)})


def edited(folder: Path, **keys: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys), encoding="utf-8")
    return folder


def test_test_data_of_one_label_are_told(tmp_path: Path) -> None:
    made = plan_of("quantize-only", write_tiny(tmp_path / "bert", "bert"), ["LABEL_1"] * 5)
    assert any("the test data have one label only, 'LABEL_1'" in note for note in made.notes)


def test_weights_that_were_cut_off_are_told(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "bert", "bert")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"model\.safetensors: cannot be read"):
        plan_of("quantize-only", folder, ["LABEL_0", "LABEL_1"])


MANY = {"problem_type": "multi_label_classification"}
SCORE = {"problem_type": "regression"}


@pytest.mark.parametrize(
    ("count", "keys", "told"),
    [(3, MANY, "several labels at once"), (3, SCORE, "a number, not a label"), (1, {}, "it has one output")],
)
def test_a_head_that_is_no_classifiers_is_refused(tmp_path: Path, count: int, keys: dict[str, str], told: str) -> None:
    folder = edited(write_tiny(tmp_path / "bert", "bert", labels=count), **keys)
    text = refused("quantize-only", folder, ["LABEL_0"])
    assert told in text
    assert "edgekit finetune" in text
    with pytest.raises(ModelError, match=told):
        run_stage("export", Export(), str(folder), tmp_path / "out")


def test_a_tagger_whose_labels_have_no_names_is_refused(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "bert", "bert")
    edited(folder, architectures=["BertForTokenClassification"])
    data = tmp_path / "test.jsonl"
    data.write_text('{"tokens": ["my", "card"], "labels": [0, 1]}\n' * 9, encoding="utf-8")
    given = {"model": str(folder), "test": str(data), "task": "token-classification", "max_length": "32"}
    with pytest.raises(PlanError, match="are no tagger's: LABEL_0, LABEL_1, LABEL_2, without O"):
        plan("quantize-only", given, store=tmp_path / "store")


PRUNED = """
schema: 1
name: pruned
description: nothing learns
model: MODEL
task: {max_length: 32}
data: {train: TRAIN, test: TRAIN}
steps:
  - {id: prune, stage: prune, source: model, config: {ffn: 0.5, round_to: 8}}
  - {id: onnx, stage: export, source: prune}
baseline: onnx
exports: [onnx]
"""


def test_nothing_is_held_out_for_steps_that_do_not_learn(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "bert", "bert")
    train, recipe = write_labels(tmp_path / "train.csv", ["LABEL_0", "LABEL_1"]), tmp_path / "own.yaml"
    recipe.write_text(PRUNED.replace("MODEL", str(folder)).replace("TRAIN", train))
    made = plan(str(recipe), {}, store=tmp_path / "store")
    assert len(made.splits.tables["train"]) == 2


def test_a_teacher_that_is_no_classifier_is_refused(tmp_path: Path) -> None:
    folder = edited(write_tiny(tmp_path / "bert", "bert"), **MANY)
    train = write_labels(tmp_path / "train.csv", ["LABEL_0", "LABEL_1", "LABEL_2"] * 10)
    assert "several labels at once" in refused("distill-to-smaller", folder, ["LABEL_0"], train=train)


def test_a_recipe_that_trains_a_new_head_takes_any(tmp_path: Path) -> None:
    folder = edited(write_tiny(tmp_path / "bert", "bert", layers=6), **MANY)
    train = write_labels(tmp_path / "train.csv", ["lost", "rate"] * 20)
    own = ("factorize.round_to=4", "prune.keep_layers=3", "onnx-int8.embeddings=int8")
    given = {"model": str(folder), "train": train, "max_length": "32"}
    assert plan("text-classifier", given, overrides=own, store=tmp_path / "store").task.labels == ("lost", "rate")
    assert load_classifier(folder, ("lost", "rate")).config.problem_type is None
