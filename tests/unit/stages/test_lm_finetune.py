from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from edgekit.artifact import Artifact, Task
from edgekit.data.table import Table
from edgekit.errors import DataError, ModelError, StageError
from edgekit.nn import train as loop
from edgekit.nn.decoders import load_decoder
from edgekit.nn.device import threads
from edgekit.nn.lm_data import read_lesson
from edgekit.nn.lm_train import evaluator
from edgekit.stages.base import Context, Outcome
from edgekit.stages.lm_finetune import LmFinetune, lm_finetune
from tests.unit.killing import KillAfter, KilledError
from tests.unit.nn.lm_sample import chatty, real_model, shakespeare

TASK = Task(kind="language-modeling", max_length=64)
QUICK = LmFinetune(epochs=2, batch_size=8, learning_rate=2e-3, precision="fp32")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threads(1):
        yield


def context(**changes: object) -> Context:
    data = {"train": shakespeare(0, 60), "validation": shakespeare(1000, 20)}
    base: dict[str, object] = {"data": data, "task": TASK}
    return Context(**{**base, **changes})  # type: ignore[arg-type]


def run(out: Path, config: LmFinetune = QUICK, given: Context | None = None, model: Path | None = None) -> Outcome:
    out.mkdir(exist_ok=True)
    source = Artifact.outside(model or real_model("stories260K"), None)
    return lm_finetune(source, config, out, given or context())


def test_it_learns_another_kind_of_text_and_the_folder_stands_alone(tmp_path: Path) -> None:
    outcome = run(tmp_path / "out")
    numbers = outcome.facts.numbers
    assert outcome.format == "hf"
    assert outcome.task == TASK
    assert outcome.metrics["validation_perplexity"] < 0.6 * numbers["perplexity_before"]
    assert not outcome.facts.warnings
    exam = read_lesson(tmp_path / "out", shakespeare(1000, 20), TASK, "texts").rows
    again = evaluator(load_decoder(tmp_path / "out"), exam, batch_size=4, device="cpu")()
    assert again["perplexity"] == pytest.approx(outcome.metrics["validation_perplexity"], rel=1e-4)


@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_a_merged_adapter_is_what_was_measured(tmp_path: Path, method: str) -> None:
    given = {"method": method, "epochs": 1, "learning_rate": 1e-2}
    outcome = run(tmp_path / "out", QUICK.model_copy(update=given))
    assert outcome.metrics["validation_perplexity"] < 0.9 * outcome.facts.numbers["perplexity_before"]
    assert outcome.facts.numbers["learnt_parameters"] < 100_000
    exam = read_lesson(tmp_path / "out", shakespeare(1000, 20), TASK, "texts").rows
    again = evaluator(load_decoder(tmp_path / "out"), exam, batch_size=4, device="cpu")()
    assert again["perplexity"] == pytest.approx(outcome.metrics["validation_perplexity"], rel=1e-3)


@pytest.mark.parametrize("extra", [{}, {"unfreeze": 2}, {"method": "lora", "dropout": 0.1}])
def test_a_killed_run_ends_with_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: dict[str, object]
) -> None:
    """Killed within the second epoch, with a checkpoint after every step."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    data = {"train": shakespeare(0, 30), "validation": shakespeare(1000, 10)}
    config = LmFinetune.model_validate(QUICK.model_dump() | extra)
    run(tmp_path / "whole", config, context(data=data))
    scratch = tmp_path / "scratch"
    with pytest.raises(KilledError):
        run(tmp_path / "killed", config, context(data=data, scratch=scratch, progress=KillAfter(9)))
    torch.manual_seed(1234)
    outcome = run(tmp_path / "resumed", config, context(data=data, scratch=scratch))
    assert outcome.facts.numbers["steps"] > 9
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "resumed")]
    assert files[0] == files[1]


def test_it_learns_to_answer(tmp_path: Path) -> None:
    """A riddle with one answer: only the answer is learnt, and then it is said."""
    model = chatty(real_model("stories260K"), tmp_path / "chatty")
    table = Table(tuple(f"What is it? {i}" for i in range(24)), ("a red ball",) * 24)
    task = TASK.model_copy(update={"max_length": 128})
    given = context(data={"train": table, "validation": table.head(4)}, task=task)
    config = QUICK.model_copy(update={"data": "chats", "epochs": 12, "learning_rate": 3e-3})
    outcome = run(tmp_path / "out", config, given, model)
    assert outcome.metrics["validation_perplexity"] < 1.5 < outcome.facts.numbers["perplexity_before"]
    numbers = outcome.facts.numbers
    assert numbers["rows"] < numbers["documents"]  # packed
    assert numbers["counted_tokens"] < 0.6 * numbers["tokens"]
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == (model / "chat_template.jinja").read_text()


def test_conversations_that_are_cut_are_told(tmp_path: Path) -> None:
    model = chatty(real_model("stories260K"), tmp_path / "chatty")
    table = Table(("Hi", "word " * 80, "Hi"), ("Good day", "lost", "Hello " * 50))
    given = context(data={"train": table, "validation": table.head(1)})
    outcome = run(tmp_path / "out", QUICK.model_copy(update={"data": "chats", "epochs": 1}), given, model)
    assert "2 of 3 conversations (66.7%) were cut; 1 of them lost every answer" in "\n".join(outcome.facts.warnings)


def test_bad_input_is_told_plainly(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ModelError, match="no chat template"):
        chats = Table((json.dumps([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]),))
        run(out, LmFinetune(data="chats"), context(data={"train": chats, "validation": chats}))
    with pytest.raises(StageError, match="600 tokens are longer than the model's context of 512"):
        run(out, QUICK, context(task=TASK.model_copy(update={"max_length": 600})))
    with pytest.raises(StageError, match="language-modeling task"):
        run(out, QUICK, context(task=None))
    with pytest.raises(DataError, match="no token is left"):
        run(out, QUICK, context(data={"train": Table(("",)), "validation": shakespeare(0, 3)}))
    with pytest.raises(StageError, match=r"is (nan|inf) at step"):
        run(out, QUICK.model_copy(update={"learning_rate": 1e30, "clip": 0.0, "warmup": 0.0}))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"method": "prefix"}, "no weight of the model can hold"),
        ({"method": "prompt"}, "no weight of the model can hold"),
        ({"data": "chats", "packing": "stream"}, "see each other"),
        ({"method": "lora", "unfreeze": 1}, "stay frozen"),
        ({"layer_decay": 1.5}, "layer_decay"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_the_reason(wrong: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        LmFinetune.model_validate(wrong)


def test_every_setting_is_described() -> None:
    assert all(field.description for field in LmFinetune.model_fields.values())
