"""What a target cannot run is found before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.api import plan, run
from edgekit.errors import PlanError
from edgekit.plan import Plan
from edgekit.runnable import for_target
from edgekit.runtimes import ARM64, RUNTIMES
from edgekit.targets import Target
from edgekit.transports.fake import Fake

BOARD = Target("board", "", Fake({}), ARM64)


@pytest.fixture
def params(tiny: Callable[..., Path], tmp_path: Path) -> dict[str, str]:
    test = tmp_path / "test.csv"
    test.write_text("text,label\nlost my card,LABEL_0\ntop up,LABEL_1\ncash rate,LABEL_2\n")
    return {"model": str(tiny("bert")), "test": str(test), "max_length": "32"}  # type: ignore[dict-item]


@pytest.fixture
def made(params: dict[str, str], tmp_path: Path) -> Plan:
    return plan("quantize-only", params, store=tmp_path / "store")


def test_formats_that_the_target_does_not_run_are_left_out_and_told(made: Plan) -> None:
    left = for_target(made, BOARD)
    assert left.recipe.exports == ("onnx-int8", "onnx-int4")
    assert [step.id for step in left.steps] == ["model-onnx", "onnx-f32", "onnx-int8", "onnx-int4"]
    assert str(left.recipe.rules[0]) == "score_drop <= 1pt on onnx-int8"
    assert left.notes[-1] == "gguf-f16 and gguf-q8 are left out: target board runs onnx files only"
    assert for_target(made, Target("here", "", Fake({}), RUNTIMES)) == made


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"baseline": "gguf-f16"}, "baseline: 'gguf-f16' is a gguf file"),
        ({"exports": ("gguf-q8",)}, "exports: none can run there: gguf-q8 (gguf)"),
    ],
)
def test_what_cannot_be_measured_there_is_refused(made: Plan, changes: dict[str, object], words: str) -> None:
    other = Plan(**{**vars(made), "recipe": made.recipe.model_copy(update=changes)})
    with pytest.raises(PlanError, match="target board runs onnx files only") as caught:
        for_target(other, BOARD)
    assert words in str(caught.value)
    assert all(problem.hint for problem in caught.value.problems)


def test_a_checkpoint_is_no_baseline_on_another_machine(made: Plan) -> None:
    """Its reference runtime imports edgekit, which is not there."""
    other = Plan(**{**vars(made), "recipe": made.recipe.model_copy(update={"baseline": "model"})})
    assert for_target(other, Target("here", "", Fake({}), RUNTIMES)).recipe.baseline == "model"
    with pytest.raises(PlanError, match=r"baseline: 'model' is a hf file \(name a step that makes a file of onnx and"):
        for_target(other, Target("pi", "", Fake({}), RUNTIMES, here=False))


def test_a_target_that_is_not_ready_is_told_before_anything_runs(
    params: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(PlanError, match="target cortex-a53 is not ready") as caught:
        run("quantize-only", params, tmp_path / "out", store=tmp_path / "store", target="cortex-a53")
    assert all(problem.hint for problem in caught.value.problems)
    assert list((tmp_path / "out").iterdir()) == []
