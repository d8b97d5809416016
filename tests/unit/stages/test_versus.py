"""Low rank beside pruning at the same cost: the one that moves the answers less stays."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.api import run_stage
from edgekit.artifact import Artifact, Task
from edgekit.data.table import SplitName, Table
from edgekit.errors import EdgekitError, StageError, UsageError
from edgekit.formats.cost_table import CostTable, Curve
from edgekit.nn.load import load_classifier, read_edits, save_model
from edgekit.nn.structure import widths_of
from edgekit.nn.surgery import part, resize_ffn, settle
from edgekit.plan import step_key
from edgekit.stages.base import Context, Outcome
from edgekit.stages.factorize import Factorize, factorize
from edgekit.transports import LOCAL
from tests.conftest import WORDS

TASK = Task(labels=("LABEL_0", "LABEL_1", "LABEL_2"), max_length=16)
DICE = np.random.default_rng(0)
TRAIN = Table(tuple(" ".join(DICE.choice(WORDS, 6)) for _ in range(80)), name="train")
HALF: dict[str, object] = {"modules": ("ffn",), "budget": 0.57, "round_to": 4}  # rank 12 of 32
Tiny = Callable[..., Path]


def factorized(folder: Path, out: Path, task: Task | None = TASK, train: Table = TRAIN, **options: object) -> Outcome:
    out.mkdir()
    config = Factorize.model_validate(HALF | options)
    return factorize(Artifact.outside(folder, task), config, out, Context({"train": train}, threads=1))


def changed(source: Path, folder: Path, change: Callable[[torch.Tensor, torch.Tensor], None]) -> Path:
    """A copy of the model with its FFNs' weights (neurons, hidden) and (hidden, neurons) changed in place, and a head
    that tells texts apart."""
    model, dice = load_classifier(source), torch.Generator().manual_seed(1)
    with torch.no_grad():
        model.get_parameter("classifier.weight").mul_(30)
        for layer in range(2):
            up, down = (part(model, layer, name) for name in ("ffn_up", "ffn_down"))
            up.weight.copy_(torch.randn(64, 32, generator=dice) / 3)
            down.weight.copy_(torch.randn(32, 64, generator=dice) / 4)
            change(up.weight, down.weight)
            up.bias[32:] = up.bias[:32]
    save_model(model, folder, tokenizer_from=source)
    return folder


def of_low_rank(source: Path, folder: Path) -> Path:
    """All weights of the FFN are products of matrices four wide."""

    def change(up: torch.Tensor, down: torch.Tensor) -> None:
        up.copy_(up[:, :4] @ up[:4, :] * 6)
        down.copy_(down[:, :4] @ down[:4, :] * 6)

    return changed(source, folder, change)


def of_twins(source: Path, folder: Path) -> Path:
    """Weights are of full rank, and every neuron is there twice."""

    def change(up: torch.Tensor, down: torch.Tensor) -> None:
        up[32:] = up[:32]

    return changed(source, folder, change)


def costs(folder: Path, file: Path, **changes: object) -> str:
    """A table in which an FFN's 56 neurons beyond the first 8 cost 1.75 of 12 ms in either layer."""
    heads, ffn = Curve(sizes=(1, 4), ms=(0.0, 3.0)), Curve(sizes=(8, 64), ms=(0.0, 1.75))
    known: dict[str, object] = {"machine": LOCAL.identity(("onnxruntime",)), "runtime": "onnxruntime", "threads": 1}
    known |= {"batch": 1, "tokens": 8.0, "precision": "int8", "whole_ms": 12.0, "smallest_ms": 2.5}
    known |= {"heads": heads, "ffn": ffn, "last_heads": heads, "last_ffn": ffn, "error": 0.01, "measured": 17}
    known |= {"widths": widths_of(load_classifier(folder)), **changes}
    file.write_text(CostTable.model_validate(known).model_dump_json(), encoding="utf-8")
    return str(file)


def test_weights_that_are_of_low_rank_stay_factorized(tiny: Tiny, tmp_path: Path) -> None:
    facts = factorized(of_low_rank(tiny(), tmp_path / "source"), tmp_path / "out", budget=0.2).facts  # rank 4
    numbers = facts.numbers
    assert facts.changed and not facts.dropped and not facts.warnings
    assert 0 <= numbers["answers_moved"] < 1e-7 < 1e-5 < numbers["answers_moved_by_pruning"]
    assert "where pruning to the same cost moves them by" in facts.summary
    assert len(read_edits(tmp_path / "out").low_rank) == numbers["factorized"] == 4
    assert numbers["cost_share"] == pytest.approx(1 - 4 * (2048 - 4 * 96) / (2 * (4 * 32 * 32 + 2 * 2048)), abs=0.02)


def test_low_rank_that_loses_to_pruning_is_dropped_and_the_source_goes_on(tiny: Tiny, tmp_path: Path) -> None:
    source = of_twins(tiny(), tmp_path / "source")
    facts = factorized(source, tmp_path / "out").facts
    assert facts.dropped and not facts.changed
    assert facts.numbers["answers_moved"] > 2 * facts.numbers["answers_moved_by_pruning"]
    assert facts.summary.startswith("dropped: low rank moved the answers by 0.")
    assert "on 20 examples that neither was fitted to" in facts.warnings[0] and "operations" in facts.warnings[0]
    assert facts.numbers["parameters_after"] == facts.numbers["parameters_before"]
    assert read_edits(tmp_path / "out").empty
    before, after = (load_classifier(folder).state_dict() for folder in (source, tmp_path / "out"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    kept = factorized(source, tmp_path / "kept", versus="none").facts
    assert kept.changed and "answers_moved" not in kept.numbers


@pytest.mark.parametrize("method", ["svd", "curvature"])
def test_other_methods_are_compared_too(tiny: Tiny, tmp_path: Path, method: str) -> None:
    facts = factorized(of_twins(tiny(), tmp_path / "twins"), tmp_path / "out", method=method).facts
    assert facts.dropped == (facts.numbers["answers_moved"] > facts.numbers["answers_moved_by_pruning"])
    assert facts.dropped or method == "curvature"  # three logits leave a low rank by curvature little to keep


def test_both_cost_the_same_by_a_table(tiny: Tiny, tmp_path: Path) -> None:
    source = of_twins(tiny(), tmp_path / "source")
    table = costs(source, tmp_path / "costs.json")
    facts = factorized(source, tmp_path / "out", costs=table).facts
    pair, dense = 12 * 96 // 64, 2048 // 64  # neurons of an FFN with as many weights
    assert facts.numbers["cost_share"] == pytest.approx(1 - 4 * (dense - pair) / 56 * 1.75 / 12)
    assert facts.dropped and "% of its predicted milliseconds" in facts.warnings[0]


def test_thin_products_that_save_no_time_are_dropped(tiny: Tiny, tmp_path: Path) -> None:
    source = of_twins(tiny(), tmp_path / "source")
    flat = Curve(sizes=(8, 64), ms=(0.0, 0.0))
    table = costs(source, tmp_path / "costs.json", ffn=flat, last_ffn=flat)
    facts = factorized(source, tmp_path / "out", costs=table).facts
    assert facts.dropped and facts.numbers["cost_share"] == 1
    assert facts.numbers["answers_moved_by_pruning"] < facts.numbers["answers_moved"] / 10


def test_what_pruning_cannot_come_down_to_stays(tiny: Tiny, tmp_path: Path) -> None:
    facts = factorized(tiny(), tmp_path / "out", modules=("attention", "ffn"), budget=0.06, round_to=1).facts
    assert facts.changed and "pruning cannot come down to its cost" in facts.summary
    assert "answers_moved_by_pruning" not in facts.numbers


def test_embeddings_are_compared_too(tiny: Tiny, tmp_path: Path) -> None:
    task = Task(kind="sentence-similarity", max_length=16)
    facts = factorized(tiny(head=False), tmp_path / "out", task).facts
    assert facts.numbers["answers_moved"] > 0 and facts.numbers["answers_moved_by_pruning"] > 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"machine": {**LOCAL.identity(("onnxruntime",)), "cpu": "cortex-a76"}}, "another machine"),
        ({"widths": {"layers": 6, "hidden": 32, "heads": 4, "head_size": 8, "ffn": 64}}, "something else"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    tiny: Tiny, tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    folder = tiny()
    table = costs(folder, tmp_path / "costs.json", **changes)
    with pytest.raises(UsageError, match=told):
        factorized(folder, tmp_path / "out", costs=table)
    if "machine" in changes:
        assert factorized(folder, tmp_path / "yes", costs=table, foreign_costs=True).facts.numbers["cost_share"] < 1


@pytest.mark.parametrize(("content", "told"), [(None, "no such file"), ("{}", "not a table of costs")])
def test_a_file_that_is_no_table_is_refused(tiny: Tiny, tmp_path: Path, content: str | None, told: str) -> None:
    file = tmp_path / "costs.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UsageError, match=told):
        factorized(tiny(), tmp_path / "out", costs=str(file))


def test_a_table_that_changed_is_another_step(tiny: Tiny, tmp_path: Path) -> None:
    config = Factorize(modules=("ffn",), costs=costs(tiny(), tmp_path / "costs.json"))
    first = step_key("factorize", config, {}, None)
    costs(tiny(), tmp_path / "costs.json", whole_ms=13.0)
    assert step_key("factorize", config, {}, None) != first


def uneven(source: Path, folder: Path) -> Path:
    model = load_classifier(source)
    resize_ffn(model, 0, torch.arange(32))
    save_model(model, folder, tokenizer_from=source, edits=settle(model))
    return folder


@pytest.mark.parametrize(
    ("make", "task", "options", "reason"),
    [
        (lambda tiny, path: tiny(head=False), None, {"method": "svd"}, "not trained"),
        (lambda tiny, path: uneven(tiny(), path / "uneven"), TASK, {}, "different widths already"),
    ],
)
def test_where_there_is_nothing_to_compare_it_says_so_and_refuses_if_told_to(
    tiny: Tiny,
    tmp_path: Path,
    make: Callable[[Tiny, Path], Path],
    task: Task | None,
    options: dict[str, object],
    reason: str,
) -> None:
    folder = make(tiny, tmp_path)
    facts = factorized(folder, tmp_path / "out", task, **options).facts
    assert facts.changed and facts.warnings[0].startswith("not compared with pruning: ") and reason in facts.warnings[0]
    with pytest.raises(StageError, match=f"cannot be compared with pruning: .*{reason}"):
        factorized(folder, tmp_path / "no", task, versus="pruning", **options)


def test_what_is_of_low_rank_already_and_too_few_data_are_not_compared(tiny: Tiny, tmp_path: Path) -> None:
    factorized(tiny(), tmp_path / "a", versus="none")
    again = factorized(tmp_path / "a", tmp_path / "b", budget=0.5).facts
    assert "of low rank already" in again.warnings[0]
    alone = factorized(tiny(), tmp_path / "c", train=TRAIN.head(1)).facts
    assert "no training data to fit both to" in alone.warnings[0]


def test_what_is_factorized_beside_the_embedding_is_not_compared(tiny: Tiny, tmp_path: Path) -> None:
    """That it was to be, its options alone rule out: test_factorize.py."""
    facts = factorized(tiny(), tmp_path / "out", modules=("ffn", "embedding")).facts
    assert facts.changed and facts.warnings[0].startswith("not compared with pruning: ")
    assert "factorized in the same step" in facts.warnings[0]


def test_the_embedding_alone_is_not_compared(tiny: Tiny, tmp_path: Path) -> None:
    facts = factorized(tiny(), tmp_path / "out", modules=("embedding",)).facts
    assert facts.changed and not facts.warnings and "answers_moved" not in facts.numbers


def test_a_dropped_step_is_kept_in_the_store_where_one_that_changed_nothing_fails(tiny: Tiny, tmp_path: Path) -> None:
    source, given = str(of_twins(tiny(), tmp_path / "source")), dict[SplitName, Table](train=TRAIN)
    config = Factorize.model_validate(HALF)
    made = run_stage(
        "factorize", config, source, tmp_path / "out", tables=given, task=TASK, store=tmp_path / "store", device="cpu"
    )
    assert made.artifact.manifest.facts.dropped
    nothing = Factorize(modules=("ffn",), rank_by="energy", energy=1.0)
    with pytest.raises(EdgekitError, match="changed nothing"):
        run_stage(
            "factorize",
            nothing,
            source,
            tmp_path / "no",
            tables=given,
            task=TASK,
            store=tmp_path / "store",
            device="cpu",
        )


def test_the_command_says_what_was_dropped(tiny: Tiny, tmp_path: Path) -> None:
    of_twins(tiny(), tmp_path / "source")
    (tmp_path / "train.csv").write_text("text\n" + "\n".join(TRAIN.texts), encoding="utf-8")
    common = ["--train", "train.csv", "--modules", "ffn", "--budget", "0.57", "--round-to", "4", "--max-length", "16"]
    common += ["--store", "store"]

    def command(*options: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "edgekit.cli.main", "factorize", "source", *options]
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)

    done = command("out", *common)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("dropped: low rank moved the answers by ")
    assert "note: dropped: " in done.stdout
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["facts"]["dropped"] is True
    refused = command("other", *common, "--costs", "absent.json")
    assert refused.returncode == 2 and "absent.json" in refused.stderr and "Traceback" not in refused.stderr
