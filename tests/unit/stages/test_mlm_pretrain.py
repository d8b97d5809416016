from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM

from edgekit.artifact import Artifact, Task
from edgekit.data.table import Table
from edgekit.errors import DataError, ModelError, StageError
from edgekit.nn import train as loop
from edgekit.nn.device import threads
from edgekit.nn.lm_rows import IGNORED
from edgekit.nn.mlm import masked_rows
from edgekit.stages.base import Context, Outcome
from edgekit.stages.finetune import Finetune, finetune
from edgekit.stages.mlm_pretrain import MlmPretrain, mlm_pretrain
from tests.unit.killing import KillAfter, KilledError

TASK = Task(max_length=16)
TEXTS = tuple(
    f"{who} {what} {when} please"
    for who in ("my card", "the transfer", "cash", "my top up")
    for what in ("is lost", "is not arrived", "is still waiting", "arrived")
    for when in ("where", "when", "the rate")
)
QUICK = MlmPretrain(epochs=6, batch_size=8, learning_rate=3e-3, precision="fp32")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threads(1):
        yield


def context(**changes: object) -> Context:
    base: dict[str, object] = {"data": {"unlabeled": Table(TEXTS)}, "task": TASK}
    return Context(**{**base, **changes})  # type: ignore[arg-type]


def run(model: Path, out: Path, config: MlmPretrain = QUICK, given: Context | None = None) -> Outcome:
    out.mkdir(exist_ok=True)
    return mlm_pretrain(Artifact.outside(model, None), config, out, given or context())


def test_each_family_learns_the_texts(any_family: Path, tmp_path: Path) -> None:
    outcome = run(any_family, tmp_path / "out")
    assert outcome.format == "hf"
    assert outcome.metrics["validation_perplexity"] < 0.6 * outcome.facts.numbers["perplexity_before"]
    assert outcome.facts.numbers["new_head"] is True
    assert outcome.task is not None
    assert outcome.task.labels == ()


def test_the_result_is_a_bare_encoder_that_finetune_takes(tiny: Callable[..., Path], tmp_path: Path) -> None:
    model = tiny("bert", head=False)
    outcome = run(model, tmp_path / "out")
    before, after = load_file(model / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    assert torch.equal(before["pooler.dense.weight"], after["pooler.dense.weight"])  # masks teach it nothing
    name = "encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(before[name], after[name])
    found, info = AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert torch.equal(found.state_dict()[name], after[name])
    table = Table(TEXTS, labels=tuple("ab"[i % 2] for i in range(len(TEXTS))))
    data = {"train": table, "validation": table}
    (tmp_path / "tuned").mkdir()
    tuned = finetune(
        Artifact.outside(tmp_path / "out", outcome.task),
        Finetune(epochs=1),
        tmp_path / "tuned",
        context(data=data, task=TASK.model_copy(update={"labels": ("a", "b")})),
    )
    assert tuned.facts.numbers["new_head"] is True


def test_a_head_that_is_there_goes_on_from_what_it_knows(tiny: Callable[..., Path], tmp_path: Path) -> None:
    model = tiny("bert")
    masked = AutoModelForMaskedLM.from_pretrained(model)
    masked.save_pretrained(model)
    outcome = run(model, tmp_path / "out", QUICK.model_copy(update={"epochs": 1}))
    assert outcome.facts.numbers["new_head"] is False


def test_a_killed_run_ends_with_the_same_file(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed within the second epoch, with a checkpoint after every step."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    model, config = tiny("bert"), QUICK.model_copy(update={"epochs": 2})
    run(model, tmp_path / "whole", config)
    scratch = tmp_path / "scratch"
    with pytest.raises(KilledError):
        run(model, tmp_path / "killed", config, context(scratch=scratch, progress=KillAfter(9)))
    torch.manual_seed(1234)
    run(model, tmp_path / "resumed", config, context(scratch=scratch))
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "resumed")]
    assert files[0] == files[1]


def test_masks_are_as_the_paper_says(tiny: Callable[..., Path]) -> None:
    table = Table((" ".join(TEXTS),) * 8)
    rows = masked_rows(tiny("bert"), [table], 400, rate=0.15, seed=0)
    given = [rows.masked(row, epoch) for row in range(len(rows)) for epoch in range(1, 60)]
    before = [rows.ids[row] for row in range(len(rows)) for _ in range(1, 60)]
    chosen = np.concatenate([labels != IGNORED for _, labels in given])
    ids, true = np.concatenate([read for read, _ in given]), np.concatenate(before)
    special = np.isin(true, (2, 3))  # [CLS], [SEP]
    assert not chosen[special].any()
    assert chosen[~special].mean() == pytest.approx(0.15, abs=0.005)
    assert np.array_equal(ids[~chosen], true[~chosen])
    assert np.array_equal(np.concatenate([labels for _, labels in given])[chosen], true[chosen])
    assert (ids[chosen] == rows.mask).mean() == pytest.approx(0.8, abs=0.02)
    assert (ids[chosen] == true[chosen]).mean() == pytest.approx(0.1, abs=0.02)


def test_masks_differ_by_epoch_and_only_by_it(tiny: Callable[..., Path]) -> None:
    rows = masked_rows(tiny("bert"), [Table(TEXTS)], 16, rate=0.3, seed=0)
    first, again, other = (rows.masked(3, epoch)[1] for epoch in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_long_texts_go_on_in_other_rows(tiny: Callable[..., Path]) -> None:
    rows = masked_rows(tiny("bert"), [Table((" ".join(TEXTS), "card", ""))], 16, rate=0.15, seed=0)
    whole = masked_rows(tiny("bert"), [Table((" ".join(TEXTS), "card", ""))], 10_000, rate=0.15, seed=0)
    assert max(rows.lengths) == 16
    assert sum(int(free.sum()) for free in rows.free) == sum(int(free.sum()) for free in whole.free)
    assert len(whole) == 2  # the empty text has no row


def test_validation_data_are_used_where_they_are_given(tiny: Callable[..., Path], tmp_path: Path) -> None:
    data = {"train": Table(TEXTS), "validation": Table(TEXTS[:7])}
    config = QUICK.model_copy(update={"epochs": 1})
    assert run(tiny("bert"), tmp_path / "a", config, context(data=data)).facts.numbers["validation_rows"] == 7
    held = run(tiny("bert"), tmp_path / "b", config).facts.numbers
    assert (held["rows"], held["validation_rows"]) == (46, 2)


def test_bad_input_is_told_plainly(tiny: Callable[..., Path], tmp_path: Path) -> None:
    model, out = tiny("bert"), tmp_path / "out"
    with pytest.raises(StageError, match="needs texts"):
        run(model, out, QUICK, context(data={}))
    with pytest.raises(DataError, match="no token is left"):
        run(model, out, QUICK, context(data={"unlabeled": Table(("", ""))}))
    with pytest.raises(StageError, match="3 rows are too few"):
        run(model, out, QUICK, context(data={"unlabeled": Table(TEXTS[:3])}))
    with pytest.raises(StageError, match="how long a row"):
        run(model, out, QUICK, context(task=None))
    (model / "edits.json").write_text('{"heads": {"0": 2}}')
    with pytest.raises(StageError, match="pruned or factorized"):
        run(model, out)
    (model / "edits.json").unlink()
    text = (model / "tokenizer.json").read_text().replace("[MASK]", "[HIDE]")
    (model / "tokenizer.json").write_text(text)
    with pytest.raises(ModelError, match="no mask token"):
        run(model, out)


def test_a_head_that_is_lost_is_told(tiny: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    source = Artifact.outside(tiny("bert"), TASK.model_copy(update={"labels": ("a", "b", "c")}))
    outcome = mlm_pretrain(source, QUICK.model_copy(update={"epochs": 1}), tmp_path / "out", context())
    assert "the classification head is left out" in "\n".join(outcome.facts.warnings)


def test_every_setting_is_described() -> None:
    assert all(field.description for field in MlmPretrain.model_fields.values())
