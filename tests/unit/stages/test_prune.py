from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from tokenizers import Tokenizer

from edgekit.api import plan
from edgekit.artifact import Artifact, Task
from edgekit.data.table import Table
from edgekit.errors import PlanError, StageError
from edgekit.nn.importance import magnitude_scores
from edgekit.nn.load import encoder_layers, load_classifier, read_edits
from edgekit.nn.surgery import ffn_width, head_count
from edgekit.shapes import next_shape, shape_of
from edgekit.stages.base import Context, Outcome
from edgekit.stages.factorize import Factorize, factorize
from edgekit.stages.prune import Prune, prune
from tests.tiny_pictures import write_vit

LABELS = ("LABEL_0", "LABEL_1", "LABEL_2")
TEXTS = ("my card is lost", "where is my money?", "please top up", "cash rate not arrived", "transfer waiting when")
TRAIN = Table(TEXTS * 4, labels=("LABEL_0", "LABEL_2", "LABEL_1", "LABEL_0", "LABEL_1") * 4, name="train")
VALIDATION = Table(("my transfers", "waiting"), labels=("LABEL_0", "LABEL_1"), name="validation")
TASK = Task(labels=LABELS, max_length=16)
Tiny = Callable[..., Path]


def artifact(folder: Path) -> Artifact:
    return Artifact.outside(folder, TASK)


def pruned(folder: Path, out: Path, **options: object) -> Outcome:
    out.mkdir()
    context = Context(data={"train": TRAIN, "validation": VALIDATION})
    return prune(artifact(folder), Prune(**options), out, context)


def logits(folder: Path, text: str = "my card is lost") -> torch.Tensor:
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    with torch.inference_mode():
        return load_classifier(folder)(input_ids=torch.tensor([ids])).logits


def test_layers_ffn_and_vocabulary_stay_a_plain_checkpoint(any_family: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = pruned(any_family, out, keep_layers=1, ffn=0.5, vocabulary=True, vocabulary_keep="data")
    facts = outcome.facts
    assert facts.changed and read_edits(out).empty and outcome.format == "hf"
    model = load_classifier(out)
    assert len(encoder_layers(model)) == 1 and ffn_width(model, 0) == 32
    assert model.config.vocab_size == facts.numbers["vocabulary_kept"]
    size = (out / "model.safetensors").stat().st_size
    assert size < 0.75 * (any_family / "model.safetensors").stat().st_size
    assert facts.numbers["parameters_after"] == sum(p.numel() for p in model.parameters())
    assert "2 -> 1 layers" in facts.summary and "FFN 64 -> 32" in facts.summary and "vocabulary" in facts.summary
    assert facts.numbers["importance_labels"] == "the data's labels"
    assert facts.numbers["error_repaired"] < facts.numbers["error_removed"]
    old, new = (Tokenizer.from_file(str(f / "tokenizer.json")) for f in (any_family, out))
    for text in (*TRAIN.texts, *VALIDATION.texts):
        assert old.encode(text).tokens == new.encode(text).tokens


def test_vocabulary_alone_changes_no_answer(any_family: Path, tmp_path: Path) -> None:
    facts = pruned(any_family, tmp_path / "out", vocabulary=True).facts
    torch.testing.assert_close(logits(tmp_path / "out"), logits(any_family))
    assert facts.numbers["vocabulary_changed_validation"] == 0
    assert facts.numbers["vocabulary_new_in_validation"] > 0, "##s is in no training text"
    assert facts.numbers["vocabulary_bytes_saved"] > 0


def test_heads_come_back_through_edits(any_family: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    facts = pruned(any_family, out, heads=0.5, importance="taylor").facts
    assert read_edits(out).heads == {0: 2, 1: 2}
    assert "heads 4 -> 2" in facts.summary
    assert logits(out).shape == (1, 3)


def test_a_global_budget_may_be_uneven(tiny: Tiny, tmp_path: Path) -> None:
    folder, out = tiny("bert"), tmp_path / "out"
    pruned(folder, out, ffn=0.5, heads=0.5, scope="global", round_to=4)
    model = load_classifier(out)
    assert sum(ffn_width(model, i) for i in range(2)) == 64
    assert sum(head_count(model, i) for i in range(2)) == 4


def test_pruning_composes_with_itself_and_with_factorize(any_family: Path, tmp_path: Path) -> None:
    source = any_family
    context = Context(data={"train": TRAIN, "validation": VALIDATION})
    (tmp_path / "low").mkdir()
    config = Factorize(modules=("embedding", "ffn", "attention"), budget=0.6, round_to=2)
    factorize(artifact(source), config, tmp_path / "low", context)
    before = set(read_edits(tmp_path / "low").low_rank.values())
    pruned(tmp_path / "low", tmp_path / "heads", heads=0.25, ffn=0.5)
    pruned(tmp_path / "heads", tmp_path / "all", keep_layers=1, layer_choice="importance", vocabulary=True)
    edits = read_edits(tmp_path / "all")
    assert edits.heads == {0: 3} and set(edits.low_rank.values()) <= before
    assert not any(".1." in path for path in edits.low_rank)
    model = load_classifier(tmp_path / "all")
    assert len(encoder_layers(model)) == 1 and ffn_width(model, 0) == 32
    assert logits(tmp_path / "all").isfinite().all()


@pytest.mark.parametrize("choice", ["first", "spread", "importance"])
def test_layers_that_stay_are_named(tiny: Tiny, tmp_path: Path, choice: str) -> None:
    facts = pruned(tiny("bert", layers=4), tmp_path / "out", keep_layers=2, layer_choice=choice).facts
    if choice != "importance":
        assert facts.numbers["layers_kept"] == {"first": "0,1", "spread": "0,3"}[choice]
    assert len(facts.touched) == 2


def test_an_untrained_encoder_needs_magnitude(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny("bert", head=False)
    with pytest.raises(StageError, match="trained classifier"):
        pruned(folder, tmp_path / "a", ffn=0.5)
    (tmp_path / "b").mkdir()
    config = Prune(ffn=0.5, importance="magnitude", reconstruct=False)
    outcome = prune(Artifact.outside(folder, None), config, tmp_path / "b", Context())
    assert outcome.facts.changed
    assert load_classifier(tmp_path / "b", ("x", "y")).classifier.out_features == 2


def test_labels_that_are_not_the_models_are_not_used(tiny: Tiny, tmp_path: Path) -> None:
    folder, foreign = tiny("bert"), Table(TEXTS, labels=("a", "b", "c", "a", "b"))
    for name, task, table in (
        ("one", Task(labels=("a", "b", "c"), max_length=16), foreign),
        ("two", None, foreign),
        ("three", Task(labels=LABELS, max_length=16), Table(TEXTS)),
    ):
        (tmp_path / name).mkdir()
        source = Artifact.outside(folder, task)
        facts = prune(source, Prune(ffn=0.5), tmp_path / name, Context(data={"unlabeled": table})).facts
        assert facts.numbers["importance_labels"] == "the model's own predictions"


def test_nothing_to_do_is_said(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny("bert")
    assert not pruned(folder, tmp_path / "a").facts.changed
    facts = pruned(folder, tmp_path / "b", ffn=0.1).facts
    assert not facts.changed and len(facts.skipped) == 2, "64 is the multiple of 32 nearest to 57.6"


def test_zeros_come_with_a_warning(tiny: Tiny, tmp_path: Path) -> None:
    facts = pruned(tiny("bert"), tmp_path / "out", n_of_m="2:4").facts
    assert facts.changed and "gets smaller or faster" in facts.warnings[0]
    assert facts.numbers["zeros_mean"] == 0.5
    weight = load_classifier(tmp_path / "out").bert.encoder.layer[1].output.dense.weight
    assert float((weight == 0).float().mean()) == 0.5


@pytest.mark.parametrize("vocabulary", [False, True])
def test_first_layers_go_into_the_table_and_the_others_are_spread(tiny: Tiny, tmp_path: Path, vocabulary: bool) -> None:
    folder, out = tiny("bert", layers=5), tmp_path / "out"
    facts = pruned(folder, out, fold_layers=2, keep_layers=2, heads=0.5, ffn=0.5, vocabulary=vocabulary).facts
    model, source = load_classifier(out), load_classifier(folder)
    assert len(encoder_layers(model)) == 2
    kept = [int(place) for place in str(facts.numbers["layers_kept"]).split(",")]
    assert kept == [2, 4]
    for place, layer in enumerate(kept):
        norms = [m.bert.encoder.layer[i].output.LayerNorm.weight for m, i in ((model, place), (source, layer))]
        assert torch.equal(*norms)
    assert "2 of 5 layers in the token table" in facts.summary and "layer 1: folded" in str(facts.touched)
    assert 0 < float(str(facts.numbers["fold_explained"])) <= 1
    planned, problems = next_shape(
        shape_of(artifact(folder), TASK), "prune", Prune(fold_layers=2, keep_layers=2, ffn=0.5), TASK, folder, {}
    )
    assert not problems and planned.config["num_hidden_layers"] == 2


@pytest.mark.parametrize("options", [{"keep_layers": 2}, {}])
def test_what_is_cut_in_a_layer_that_stays_is_its_own_least(
    tiny: Tiny, tmp_path: Path, options: dict[str, int]
) -> None:
    folder, out = tiny("bert", layers=5), tmp_path / "out"
    pruned(folder, out, fold_layers=2, ffn=0.5, importance="magnitude", reconstruct=False, **options)
    cut, source = load_classifier(out), load_classifier(folder)
    scores = magnitude_scores(source).ffn
    for place, layer in enumerate([2, 4] if options else [2, 3, 4]):
        best = scores[layer].argsort(descending=True)[:32].sort().values
        whole = source.bert.encoder.layer[layer].intermediate.dense.weight
        assert torch.equal(cut.bert.encoder.layer[place].intermediate.dense.weight, whole[best])


def test_unlabeled_texts_show_what_layers_make_of_tokens_too(tiny: Tiny, tmp_path: Path) -> None:
    folder, more = tiny("bert"), Table(("lost lost", "my my"), name="unlabeled")
    seen = []
    for name, data in (("a", {"train": TRAIN}), ("b", {"train": TRAIN, "unlabeled": more}), ("c", {"unlabeled": more})):
        (tmp_path / name).mkdir()
        done = prune(artifact(folder), Prune(fold_layers=1), tmp_path / name, Context(data=data))
        seen.append(int(done.facts.numbers["fold_tokens"]))
        assert len(encoder_layers(load_classifier(tmp_path / name))) == 1
    assert seen[1] == seen[0] + seen[2] and seen[2] == 8  # two words each, and the two special tokens


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"fold_layers": 2}, "fold_layers is 2, and the model has 2 layers"),
        ({"fold_layers": 1, "keep_layers": 2}, "keep_layers is 2, but the model has only"),
    ],
)
def test_more_folded_layers_than_there_are_is_refused(
    tiny: Tiny, tmp_path: Path, options: dict[str, int], what: str
) -> None:
    folder = tiny("bert")
    with pytest.raises(StageError, match=what):
        pruned(folder, tmp_path / "out", **options)
    [problem] = next_shape(shape_of(artifact(folder), TASK), "prune", Prune(**options), TASK, folder, {})[1]
    assert what in problem.what
    train = tmp_path / "train.csv"
    train.write_text("text,label\n" + "my card is lost,a\nplease top up,b\n" * 20, encoding="utf-8")
    given = {"model": str(folder), "train": str(train), "max_length": 16}
    overrides = [f"prune.{name}={value}" for name, value in {"keep_layers": 0, **options}.items()]
    with pytest.raises(PlanError, match=what):  # and the steps behind it are planned all the same
        plan("text-classifier", given, overrides=overrides, store=tmp_path / "store")


def test_pictures_are_refused_before_any_data_are_read(tmp_path: Path) -> None:
    source, out = write_vit(tmp_path / "vit"), tmp_path / "out"
    out.mkdir()
    task = Task(kind="image-classification", labels=LABELS, max_length=5)
    with pytest.raises(StageError, match="reads pictures"):
        prune(Artifact.outside(source, task), Prune(fold_layers=1), out, Context(task=task))


def test_what_has_no_such_table_is_refused_by_the_plan(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny("electra")
    shape = shape_of(artifact(folder), TASK)
    [problem] = next_shape(shape, "prune", Prune(fold_layers=1), TASK, folder, {})[1]
    assert "not as wide as its hidden state" in problem.what
    shape = shape_of(artifact(tiny("bert")), TASK)
    thin = next_shape(shape, "factorize", Factorize(modules=("embedding",)), TASK, folder, {})[0]
    assert next_shape(thin, "prune", Prune(fold_layers=1), TASK, folder, {})[1][0].hint == "put factorize after prune"


def test_the_same_seed_gives_the_same_bytes(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny("bert")
    for name in ("a", "b"):
        pruned(folder, tmp_path / name, ffn=0.5, heads=0.25, keep_layers=1, vocabulary=True, samples=7)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_what_cannot_work_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny("bert")
    with pytest.raises(StageError, match="only 2 layers"):
        pruned(folder, tmp_path / "a", keep_layers=3)
    for options, what in (({"ffn": 0.5}, "train data"), ({"vocabulary": True}, "needs data")):
        out = tmp_path / what.replace(" ", "")
        out.mkdir()
        with pytest.raises(StageError, match=what):
            prune(artifact(folder), Prune(**options), out, Context())
    for bad in ({"n_of_m": "4:2"}, {"n_of_m": "2:4", "unstructured": 0.5}, {"ffn": 1.0}, {"heads": -0.1}, {"no": 1}):
        with pytest.raises(ValidationError):
            Prune(**bad)


def test_every_option_has_a_default_and_a_help() -> None:
    schema = Prune.model_json_schema()
    assert "required" not in schema
    assert all(field.get("description") for field in schema["properties"].values())
    assert json.loads(Prune().model_dump_json())["round_to"] == 32
