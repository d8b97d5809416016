from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from edgekit.errors import RecipeError
from edgekit.library import find_recipe, names
from edgekit.recipe import load_recipe, resolve
from edgekit.recipe_schema import recipe_schema
from edgekit.stages.prune import Prune

SOUND = """
schema: 1
name: small
description: A small one.
params:
  model: {required: true}
  ffn: {type: float, default: 0.5}
model: ${model}
data: {train: train.csv, test: test.csv}
steps:
  - {id: finetune, stage: finetune, source: model, config: {epochs: 2}}
  - {id: prune, stage: prune, source: finetune, config: {ffn: "${ffn}"}}
  - {id: onnx, stage: export, source: prune, config: {format: onnx}}
baseline: onnx
exports: [onnx]
gate: [accuracy_drop <= 1pt]
"""

MISTAKES = [  # what to replace, by what, and what the message must name
    ("epochs: 2", "epoch: 2", ["steps[0](finetune).config.epoch", "unknown key", "did you mean 'epochs'?"]),
    ("epochs: 2", "epochs: two", ["steps[0](finetune).config.epochs", "valid integer"]),
    ("stage: prune", "stage: purne", ["steps[1](prune).stage", "did you mean 'prune'?"]),
    ("source: finetune", "source: finetoon", ["steps[1](prune).source", "did you mean 'finetune'?"]),
    ("baseline: onnx", "baseline: onx", ["baseline", "did you mean 'onnx'?"]),
    ("exports: [onnx]", "exports: [ggfu]", ["exports", "no step 'ggfu'"]),
    ("description: A", "descripton: A", ["descripton", "did you mean 'description'?"]),
    ('"${ffn}"', '"${fnn}"', ["no param 'fnn'", "did you mean 'ffn'?"]),
    ("accuracy_drop <= 1pt", "acuracy_drop <= 1pt", ["gate[0]", "did you mean 'accuracy_drop'?"]),
    ("accuracy_drop <= 1pt", "accuracy_drop <= 1ms", ["gate[0]", "accuracy_drop"]),
    ("id: prune, stage", "id: finetune, stage", ["the id 'finetune' is taken"]),
    ("schema: 1", "schema: 2", ["schema"]),
    ("data: {train", "data: {trian", ["data.trian", "did you mean 'train'?"]),
    ("  ffn: {type: float", "  ffn: {typ: float", ["params.ffn.typ", "did you mean 'type'?"]),
    ("stage: prune, source", "stage: distill, teacher: [finetune, fintune], source", ["did you mean 'finetune'?"]),
    ("stage: prune, source", "stage: distill, source", ["steps[1](prune)", "distill needs a teacher"]),
    ("stage: prune, source", "stage: prune, teacher: finetune, source", ["prune takes no teacher"]),
    ("stage: prune, source", "stage: lm-distill, teacher: [finetune, model], source", ["takes one teacher"]),
]


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_a_sound_recipe_is_typed(tmp_path: Path) -> None:
    resolved = resolve(load_recipe(write(tmp_path, SOUND)), {"model": "./m", "ffn": 0.25})
    prune = resolved.steps[1].config
    assert isinstance(prune, Prune)
    assert prune.ffn == 0.25
    assert resolved.model == "./m"
    assert [str(rule) for rule in resolved.rules] == ["accuracy_drop <= 1pt"]


@pytest.mark.parametrize(("old", "new", "expected"), MISTAKES)
def test_every_typo_is_told_with_its_path_and_the_nearest_name(
    tmp_path: Path, old: str, new: str, expected: list[str]
) -> None:
    assert old in SOUND
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, SOUND.replace(old, new, 1)))
    assert caught.value.exit_code == 2
    for text in expected:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("written", "read"), [("finetune", ("finetune",)), ("[finetune, model]", ("finetune", "model"))]
)
def test_a_step_has_one_teacher_or_a_list(tmp_path: Path, written: str, read: tuple[str, ...]) -> None:
    text = SOUND.replace("stage: prune, source", f"stage: distill, teacher: {written}, source").replace(
        'config: {ffn: "${ffn}"}', "config: {epochs: 1}"
    )
    assert resolve(load_recipe(write(tmp_path, text)), {"model": "m"}).steps[1].teachers == read


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    text = SOUND.replace("epochs: 2", "epoch: 2").replace("baseline: onnx", "baseline: onx").replace("<= 1pt", "<= 1ms")
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, text))
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a list", "a recipe is a mapping"),
        ("a: [1", "is not YAML"),
        ("name: a\nname: b", "the key 'name' is written twice"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
        ("", "a recipe is a mapping"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message.replace("(", r"\(")):
        load_recipe(write(tmp_path, text))


def test_overrides_change_the_workload_too(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SOUND))
    assert resolve(recipe, {"model": "m"}, ["workload.rounds=24"]).workload.rounds == 24
    with pytest.raises(RecipeError, match="did you mean 'rounds'"):
        resolve(recipe, {"model": "m"}, ["workload.round=24"])


def test_overrides_change_one_field(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SOUND))
    resolved = resolve(recipe, {"model": "m"}, ["prune.ffn=0.75", "prune.vocabulary=true"])
    prune = resolved.steps[1].config
    assert isinstance(prune, Prune)
    assert (prune.ffn, prune.vocabulary) == (0.75, True)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("prune.fnn=1", "did you mean 'ffn'?"),
        ("purne.ffn=1", "did you mean 'prune'?"),
        ("prune.ffn", "is not STEP.FIELD=VALUE"),
        ("prune.ffn=2", "less than 1"),
        ("prune.ffn=half", "valid number"),
    ],
)
def test_a_wrong_override_is_told(tmp_path: Path, override: str, message: str) -> None:
    recipe = load_recipe(write(tmp_path, SOUND))
    with pytest.raises(RecipeError) as caught:
        resolve(recipe, {"model": "m"}, [override])
    assert message in str(caught.value)


def test_missing_and_unknown_params_are_told(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SOUND))
    with pytest.raises(RecipeError) as caught:
        resolve(recipe, {"modle": "m"})
    assert "did you mean 'model'?" in str(caught.value)
    assert "params.model: is required" in str(caught.value)


@pytest.mark.parametrize("name", names())
def test_shipped_recipes_are_sound_and_say_how_they_are_used(name: str) -> None:
    path = find_recipe(name)
    assert load_recipe(path).name == name
    assert path.read_text().startswith(f"# edgekit run {name} ")


def test_there_are_recipes() -> None:
    assert {"text-classifier", "quantize-only", "distill-to-smaller"} <= set(names())


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="no recipe 'text-clasifier'") as caught:
        find_recipe("text-clasifier")
    assert "did you mean 'text-classifier'?" in str(caught.value)


@pytest.mark.parametrize("name", names())
def test_the_schema_accepts_what_the_loader_accepts(name: str) -> None:
    schema = recipe_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(find_recipe(name).read_text()), schema)


@pytest.mark.parametrize(
    ("old", "new"), [(old, new) for old, new, _ in MISTAKES if "key" in str(_) or "valid" in str(_)]
)
def test_the_schema_refuses_unknown_keys_and_wrong_types(old: str, new: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(SOUND.replace(old, new, 1)), recipe_schema())


@pytest.mark.parametrize("method", ["prefix", "prompt"])
def test_what_no_file_can_hold_is_refused_when_the_recipe_is_read(method: str) -> None:
    recipe = load_recipe(find_recipe("llm-finetune-quantize"))
    step = next(step.id for step in recipe.steps if step.stage == "lm-finetune")
    params = {name: "x" for name, param in recipe.params.items() if param.required}
    with pytest.raises(RecipeError) as told:
        resolve(recipe, params, [f"{step}.method={method}"])
    assert any("no weight of the model can hold" in problem.what for problem in told.value.problems)
