from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import StageError
from edgekit.nn import train as module
from edgekit.nn.checkpoint import read_checkpoint, write_checkpoint
from edgekit.nn.device import autocast, seeded, threads
from edgekit.nn.optimizer import make_optimizer, make_schedule
from edgekit.nn.settings import Training
from edgekit.nn.train import CHECKPOINT, Hooks, Job, State, Trained, epoch_batches, train
from edgekit.progress import Silent
from tests.unit.killing import KillAfter, KilledError

ROWS = 20
RATES = {"classifier.weight": 10.0}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of tiny models only wait for each other."""
    with threads(1):
        yield


class Net(torch.nn.Module):
    """Dropout makes the random state matter, the norm gives a vector to leave undecayed."""

    drop = 0.2

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Linear(4, 8)
        self.norm = torch.nn.LayerNorm(8)
        self.classifier = torch.nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.nn.functional.dropout(self.norm(self.body(x)), self.drop, self.training))


def make_job(scores: list[float] | None = None, *, broken_at: int | None = None) -> Job:
    """A job on random points; `scores` scripts the validation accuracy, epoch by epoch."""
    with seeded(3, "cpu"):
        net, x = Net(), torch.randn(ROWS, 4)
    labels = x[:, :3].argmax(-1)
    calls = {"loss": 0, "evaluate": 0}

    def loss(rows: list[int]) -> torch.Tensor:
        calls["loss"] += 1
        value = torch.nn.functional.cross_entropy(net(x[rows]), labels[rows])
        return value * float("nan") if calls["loss"] == broken_at else value

    def evaluate() -> dict[str, float]:
        net.eval()
        calls["evaluate"] += 1
        with torch.no_grad():
            logits = net(x)
        accuracy = float((logits.argmax(-1) == labels).float().mean())
        if scores is not None:
            accuracy = scores[calls["evaluate"] - 1]
        validation = float(torch.nn.functional.cross_entropy(logits, labels))
        return {"accuracy": accuracy, "macro_f1": accuracy, "loss": validation}

    return Job(net, [1 + i % 5 for i in range(ROWS)], loss, evaluate, "job", metric="accuracy", rates=RATES)


def settings(**changes: object) -> Training:
    base: dict[str, object] = {"epochs": 3, "learning_rate": 0.01, "batch_size": 4, "precision": "fp32", "seed": 5}
    return Training.model_validate(base | changes)


def weights(job: Job) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in job.model.state_dict().items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def run(job: Job, config: Training, scratch: Path | None = None, progress: Silent | None = None) -> Trained:
    return train(job, config, scratch=scratch, progress=progress or Silent())


def test_training_learns_and_repeats_itself() -> None:
    first, second, other = make_job(), make_job(), make_job()
    trained = run(first, settings(epochs=20))
    run(second, settings(epochs=20))
    run(other, settings(epochs=20, seed=6))
    assert trained.best.figures["accuracy"] > 0.8
    assert trained.history[-1].loss < trained.history[0].loss
    assert trained.steps == 20 * 5
    assert same(weights(first), weights(second))
    assert not same(weights(first), weights(other))


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("kill", [3, 5, 8])
def test_a_killed_run_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill: int, accumulate: int
) -> None:
    """Killed within an epoch (checkpoints after every step) and at its very end."""
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 0.0)
    config = settings(accumulate=accumulate, schedule="cosine", epochs=4)
    whole = make_job()
    unbroken = run(whole, config)
    with pytest.raises(KilledError):
        run(make_job(), config, tmp_path, KillAfter(kill))
    torch.manual_seed(99)  # the second process starts with another random state
    resumed = make_job()
    trained = run(resumed, config, tmp_path)
    assert trained.resumed_at == kill
    assert same(weights(whole), weights(resumed))
    assert trained.history == unbroken.history


def test_a_kill_before_the_minute_is_up_goes_back_to_the_epoch(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        run(make_job(), settings(), tmp_path, KillAfter(8))
    whole, resumed = make_job(), make_job()
    run(whole, settings())
    assert run(resumed, settings(), tmp_path).resumed_at == 5
    assert same(weights(whole), weights(resumed))


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    first, second = make_job(), make_job(broken_at=1)
    run(first, settings(), tmp_path)
    assert run(second, settings(), tmp_path).resumed_at == 15
    assert same(weights(first), weights(second))


def test_another_jobs_or_a_damaged_checkpoint_is_not_taken_up(tmp_path: Path) -> None:
    run(make_job(), settings(), tmp_path)
    job = make_job()
    stranger = Job(job.model, job.lengths, job.loss, job.evaluate, "other", metric=job.metric, rates=job.rates)
    assert run(stranger, settings(), tmp_path).resumed_at == 0
    (tmp_path / CHECKPOINT).write_bytes((tmp_path / CHECKPOINT).read_bytes()[:-100])
    assert run(make_job(), settings(), tmp_path).resumed_at == 0


SCRIPT = """
import sys, time, torch
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_train as t
from edgekit.nn.train import train
t.module.CHECKPOINT_SECONDS = 0.0
torch.set_num_threads(1)
class Slow(t.Silent):
    def track(self, items, label, total=None):
        for item in items:
            time.sleep(0.02)
            yield item
t.run(t.make_job(), t.settings(epochs=60), Path(sys.argv[1]), Slow())
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kill -9 is a POSIX thing")
def test_kill_minus_nine(tmp_path: Path) -> None:
    """A real SIGKILL at no particular moment, perhaps in the middle of a write."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(Path(__file__).parent)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    while not (tmp_path / CHECKPOINT).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    whole, resumed = make_job(), make_job()
    run(whole, settings(epochs=60))
    trained = run(resumed, settings(epochs=60), tmp_path)
    assert 0 < trained.resumed_at < trained.steps
    assert same(weights(whole), weights(resumed))


def test_the_best_epoch_is_kept_and_patience_ends_the_run() -> None:
    scores = [0.2, 0.9, 0.8, 0.7, 0.6]
    job, short = make_job(scores), make_job(scores[:2])
    trained = run(job, settings(epochs=5, patience=2, schedule="constant"))
    assert (trained.best.epoch, len(trained.history), trained.stopped_early) == (2, 4, True)
    assert "patience" in trained.warnings[0]
    run(short, settings(epochs=2, schedule="constant", warmup=0.25))
    run(again := make_job(scores), settings(epochs=5, schedule="constant", warmup=0.1))
    assert same(weights(short), weights(again))
    assert trained.summary("accuracy") == "best epoch 2 of 4: validation accuracy 0.900"


def test_early_stopping_survives_a_resume(tmp_path: Path) -> None:
    run(make_job([0.9, 0.1, 0.1]), settings(patience=1), tmp_path)
    trained = run(make_job([]), settings(patience=1), tmp_path)
    assert trained.stopped_early
    assert trained.resumed_at == trained.steps == 10


@pytest.mark.parametrize("broken_at", [1, 7])
def test_a_loss_that_is_not_finite_stops_the_run(broken_at: int) -> None:
    with pytest.raises(StageError, match=f"nan at step {broken_at}") as caught:
        run(make_job(broken_at=broken_at), settings())
    assert "learning_rate" in caught.value.hint


def test_a_checkpoint_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    with pytest.raises(StageError, match="cannot write"):
        run(make_job(), settings(), blocked / "scratch")


def test_a_write_that_fails_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / CHECKPOINT
    state = State(identity="a", step=1, loss_sum=0.1, weight=3, history=())
    write_checkpoint(path, {"x": torch.ones(3)}, state)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StageError, match="No space left"):
        write_checkpoint(path, {"x": torch.zeros(3)}, state)
    found = read_checkpoint(path, State)
    assert found is not None
    assert torch.equal(found[0]["x"], torch.ones(3))
    assert found[1] == state
    assert [p.name for p in tmp_path.iterdir()] == [CHECKPOINT]


def test_the_callers_random_state_is_left_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    run(make_job(), settings())
    assert torch.equal(torch.rand(1), expected)


def test_accumulated_batches_step_as_one_large_batch() -> None:
    """8 + 8 + 4 rows give the gradient of 20 rows: each batch counts by its rows, the short one less."""
    results = []
    for size, many in ((20, 1), (8, 3)):
        job = make_job()
        job.model.drop = 0.0
        trained = run(job, settings(batch_size=size, accumulate=many, epochs=2, schedule="constant"))
        assert trained.steps == 2
        results.append(weights(job))
    for name, tensor in results[0].items():
        torch.testing.assert_close(tensor, results[1][name], rtol=1e-4, atol=1e-6)


def test_rows_count_by_their_weights() -> None:
    """Batches of unlike weight, accumulated, give the gradient of the weighted mean over all rows."""
    weights_of = [1 + 3 * (row % 4) for row in range(ROWS)]
    results = []
    for size, many in ((20, 1), (8, 3)):
        job = make_job()
        job.model.drop = 0.0
        plain = job.loss

        def weighted(rows: list[int], plain: Callable[[list[int]], torch.Tensor] = plain) -> torch.Tensor:
            each = torch.stack([plain([row]) * weights_of[row] for row in rows])
            return each.sum() / sum(weights_of[row] for row in rows)

        run(
            replace(job, loss=weighted, weights=weights_of),
            settings(batch_size=size, accumulate=many, epochs=2, schedule="constant"),
        )
        results.append(weights(job))
    for name, tensor in results[0].items():
        torch.testing.assert_close(tensor, results[1][name], rtol=1e-4, atol=1e-6)


class Diary(Hooks):
    """Writes down what it is told, and freezes the body in the first epoch."""

    def __init__(self, job: Job) -> None:
        self.body, self.told = job.model.body, torch.zeros(0)

    def epoch(self, number: int) -> None:
        self.body.requires_grad_(number > 0)

    def step(self, number: int) -> None:
        self.told = torch.cat([self.told, torch.tensor([float(number)])])

    def state(self) -> dict[str, torch.Tensor]:
        return {"told": self.told}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        self.told = tensors["told"]


@pytest.mark.parametrize("kill", [3, 8])
def test_hooks_are_told_of_epochs_and_steps_and_survive_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill: int
) -> None:
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 0.0)
    jobs = [replace(job, hooks=Diary(job)) for job in (make_job(), make_job(), make_job())]
    body = weights(jobs[0])["body.weight"]
    with pytest.raises(KilledError):
        run(jobs[1], settings(), tmp_path, KillAfter(kill))
    assert torch.equal(body, weights(jobs[1])["body.weight"]) == (kill == 3)
    run(jobs[0], settings())
    run(jobs[2], settings(), tmp_path)
    assert isinstance(jobs[2].hooks, Diary)
    assert jobs[2].hooks.told.tolist() == [float(step) for step in range(1, 16)]
    assert same(weights(jobs[0]), weights(jobs[2]))


def test_frozen_parameters_are_left_alone_and_the_least_loss_is_kept(tmp_path: Path) -> None:
    job = replace(make_job([0.1, 0.9, 0.5]), metric="loss")
    job.model.body.requires_grad_(False)
    before = weights(job)
    trained = run(job, settings(), tmp_path)
    assert torch.equal(before["body.weight"], weights(job)["body.weight"])
    assert not torch.equal(before["norm.weight"], weights(job)["norm.weight"])
    assert trained.best.figures["loss"] == min(epoch.figures["loss"] for epoch in trained.history)
    found = read_checkpoint(tmp_path / CHECKPOINT, State)
    assert found is not None
    assert not any("body" in name for name in found[0])


def test_biases_and_norms_are_not_decayed_and_a_new_head_learns_faster() -> None:
    net = Net()
    optimizer = make_optimizer(
        dict(net.named_parameters()),
        learning_rate=0.1,
        weight_decay=0.5,
        rates={"classifier.weight": 10.0, "classifier.bias": 10.0},
    )
    found = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    assert found[id(net.body.weight)] == (0.1, 0.5)
    assert found[id(net.norm.weight)] == (0.1, 0.0)
    assert found[id(net.classifier.weight)] == (1.0, 0.5)
    assert found[id(net.classifier.bias)] == (1.0, 0.0)


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
def test_schedules_rise_then_do_as_they_say_and_resume(kind: str) -> None:
    def rates(done: int) -> list[float]:
        optimizer = make_optimizer(dict(Net().named_parameters()), learning_rate=1.0, weight_decay=0.0, rates={})
        schedule = make_schedule(optimizer, kind, steps=20, warmup=0.2, done=done)  # type: ignore[arg-type]
        found = []
        for _ in range(done, 20):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return found

    whole = rates(0)
    assert whole[:5] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert whole[-1] == (1.0 if kind == "constant" else pytest.approx(0.0, abs=0.07))
    assert all(a >= b for a, b in itertools.pairwise(whole[4:]))
    assert rates(7) == whole[7:]


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=300),
    size=st.integers(1, 40),
    seed=st.integers(0, 9),
    epoch=st.integers(0, 9),
)
def test_every_row_comes_once_an_epoch(lengths: list[int], size: int, seed: int, epoch: int) -> None:
    batches = epoch_batches(lengths, size, seed, epoch)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // size)
    assert batches == epoch_batches(lengths, size, seed, epoch)


def test_batches_pad_little_and_differ_between_epochs() -> None:
    lengths = torch.randint(4, 40, (2000,), generator=torch.Generator().manual_seed(0)).tolist()
    batches = epoch_batches(lengths, 32, 0, 0)
    padded = sum(len(b) * max(lengths[r] for r in b) for b in batches)
    assert padded < 1.05 * sum(lengths)
    assert {tuple(sorted(b)) for b in batches}.isdisjoint({tuple(sorted(b)) for b in epoch_batches(lengths, 32, 0, 1)})


def test_bf16_changes_the_arithmetic_and_fp32_does_not() -> None:
    layer, x = torch.nn.Linear(4, 4), torch.ones(1, 4)
    with autocast("bf16", "cpu"):
        assert layer(x).dtype == torch.bfloat16
    with autocast("fp32", "cpu"):
        assert layer(x).dtype == torch.float32
