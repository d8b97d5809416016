from __future__ import annotations

import builtins
from typing import Any

import pytest
import torch

from edgekit.errors import MissingExtraError
from edgekit.nn.device import seeded
from edgekit.nn.lm_adapters import Method, adapt, hooks_of, merge
from edgekit.nn.settings import Training
from edgekit.nn.train import Job, Trained, train
from edgekit.progress import Silent
from tests.unit.killing import KillAfter, KilledError
from tests.unit.nn.tiny_decoders import tiny_decoder

IDS = torch.randint(0, 50, (8, 12), generator=torch.Generator().manual_seed(0))
SETTINGS = Training(epochs=5, learning_rate=0.02, batch_size=2, precision="fp32")
STEPS = 20
ADAPTERS: list[Method] = ["lora", "dora", "adalora", "ia3"]


def adapted(method: Method) -> Any:
    with seeded(0, "cpu"):
        base = tiny_decoder("llama", dtype=torch.float32)
        return adapt(base, method, rank=4, alpha=8.0, dropout=0.0, steps=STEPS)


def run(model: Any, method: Method, scratch: Any = None, progress: Silent | None = None) -> Trained:
    def loss(rows: list[int]) -> torch.Tensor:
        found: torch.Tensor = model(input_ids=IDS[rows], labels=IDS[rows], use_cache=False).loss
        return found

    def evaluate() -> dict[str, float]:
        with torch.no_grad():
            return {"loss": float(model.eval()(input_ids=IDS, use_cache=False).logits.std())}

    job = Job(model, [12] * len(IDS), loss, evaluate, method, hooks=hooks_of(model, method))
    return train(job, SETTINGS, scratch=scratch, progress=progress or Silent())


@pytest.mark.parametrize("method", ADAPTERS)
def test_the_merged_model_is_a_plain_one_that_says_the_same(method: Method) -> None:
    model, plain = adapted(method), tiny_decoder("llama", dtype=torch.float32)
    run(model, method)
    with torch.no_grad():
        trained = model(input_ids=IDS, use_cache=False).logits
        merged = merge(model, method)
        torch.testing.assert_close(merged(input_ids=IDS).logits, trained, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(plain(input_ids=IDS).logits, trained, atol=0.05)
    assert merged.state_dict().keys() == plain.state_dict().keys()


def test_only_the_adapter_learns() -> None:
    model = adapted("lora")
    before = {n: p.clone() for n, p in model.named_parameters()}
    run(model, "lora")
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved
    assert all("lora_" in name for name in moved)


@pytest.mark.parametrize("kill", [6, 18])
def test_adalora_moves_ranks_and_a_killed_run_ends_with_the_same_bits(tmp_path: Any, kill: int) -> None:
    """Killed while ranks move, and after they are settled (the last quarter of the steps)."""
    whole, killed, resumed = (adapted("adalora") for _ in range(3))
    run(whole, "adalora")
    with pytest.raises(KilledError):
        run(killed, "adalora", tmp_path, KillAfter(kill))
    assert run(resumed, "adalora", tmp_path).resumed_at == kill // 4 * 4
    own, other = dict(whole.named_parameters()), dict(resumed.named_parameters())
    assert all(torch.equal(own[name], other[name]) for name in own)
    ranks = [int((p != 0).sum()) for name, p in own.items() if "lora_E" in name]
    assert sum(ranks) == 4 * len(ranks)
    assert len(set(ranks)) > 1


def test_without_peft_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name == "peft":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtraError, match="peft is not installed") as caught:
        adapted("lora")
    assert "edgekit[peft]" in caught.value.hint
