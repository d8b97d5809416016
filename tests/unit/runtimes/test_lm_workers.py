"""Workers of language models: the KV cache is cut back rightly, in each runtime; and what a job may not ask."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lm_harness
import numpy as np
import pytest
import torch
from harness import JobError
from lm_bandwidth_worker import work as read_memory
from lm_genai_worker import GenAI
from lm_harness import Decoder, Need, perform, score_row
from lm_llama_worker import Llama
from lm_torch_worker import Torch
from tiny_lm import write_genai, write_gguf, write_hf

from edgekit.artifact import Artifact
from tests.conftest import bpe_spec

NEED = Need(tokens=20, outputs=8, highest=9)
IDS = [5, 0, 7, 2, 9, 4, 4, 8]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Callable[..., Decoder], str]]:
    home = tmp_path_factory.mktemp("lm")
    original = write_hf(home / "hf", bpe_spec(["a tiny text"], 300), 300)
    gguf: Artifact = write_gguf(original, home / "gguf")
    genai = write_genai(original, home / "genai")
    return {
        "torch": (Torch, str(original.path)),
        "llama": (Llama, str(gguf.model_file)),
        "genai": (GenAI, str(genai.path)),
    }


def job(folder: Path, rows: list[list[int]], mode: str, **more: Any) -> dict[str, Any]:
    inputs = folder / "inputs.json"
    inputs.write_text(json.dumps({"rows": [[row, []] for row in rows]}))
    shared = {"inputs": str(inputs), "threads": 1, "mode": mode, "provider": "cpu", "batch": 1, "items": None}
    return {**shared, "warmup": 1, "seconds": None, "iterations": 3, "phase": None, **more}


@pytest.mark.parametrize("name", ["torch", "llama", "genai"])
def test_a_cache_that_is_cut_back_is_as_it_was(models: dict[str, Any], name: str) -> None:
    opener, path = models[name]
    decoder = opener({"model": path, "threads": 1, "provider": "cpu"}, NEED)

    def logits(ids: list[int], wanted: int) -> Any:
        decoder.feed(ids, wanted)
        return np.array(decoder.logits())

    whole = logits(IDS, len(IDS))
    assert whole.shape == (8, 300)
    for kept in (6, 3, 1, 0):
        decoder.rewind(kept)
        assert np.abs(logits(IDS[kept : kept + 2], 1)[0] - whole[kept + 1]).max() < 2e-2
    decoder.rewind(0)
    assert np.abs(logits(IDS, 2) - whole[-2:]).max() < 1e-5


@pytest.mark.parametrize("name", ["torch", "llama", "genai"])
@pytest.mark.parametrize(("phase", "rows"), [("decode", [[5, 6, 7], [5, 6, 8]]), ("prefill", [[5, 6, 7], [9, 6, 8]])])
def test_steps_and_prompts_are_timed(
    models: dict[str, Any], tmp_path: Path, name: str, phase: str, rows: list[list[int]]
) -> None:
    opener, path = models[name]
    given = job(tmp_path, rows, "latency", phase=phase, model=path)
    decoder: list[Decoder] = []
    found = perform(given, lambda *args: decoder.append(opener(*args)) or decoder[0])
    assert len(found["samples_ms"]) == len(found["cpu_ms"]) == 3
    last = np.array(decoder[0].logits())  # of the third, which is the first row
    decoder[0].rewind(0)
    decoder[0].feed(rows[0], 1)
    assert np.abs(last - decoder[0].logits()).max() < 2e-2


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"mode": "latency", "phase": "decode", "rows": [[5, 6, 7], [4, 6, 7]]}, "the same in every row"),
        ({"mode": "latency", "phase": "decode", "rows": [[5]]}, "must have 2 or more"),
        ({"mode": "latency", "phase": "both", "rows": [[5]]}, "unknown phase"),
        ({"mode": "latency", "phase": "prefill", "rows": [[5]], "batch": 2}, "one sequence at a time"),
        ({"mode": "score", "scored_from": 2, "reference": None, "rows": [[5, 6]]}, "must have 3 or more"),
        ({"mode": "score", "reference": None, "rows": []}, "0 rows"),
        ({"mode": "score", "reference": None, "rows": [[5, -1]]}, "a negative token id"),
        ({"mode": "dump", "output": "x.npy", "rows": [[5, 6], [5, 6, 7]]}, "different lengths"),
    ],
)
def test_what_a_job_may_not_ask(models: dict[str, Any], tmp_path: Path, more: dict[str, Any], words: str) -> None:
    opener, path = models["llama"]
    with pytest.raises(JobError, match=words):
        perform(job(tmp_path, more.pop("rows"), more.pop("mode"), model=path, **more), opener)


def test_probabilities_that_are_not_finite_are_told(tmp_path: Path) -> None:
    class Broken:
        def rewind(self, length: int) -> None: ...
        def feed(self, ids: list[int], wanted: int) -> None: ...
        def logits(self) -> Any:
            return np.array([[1.0, np.nan, 3.0]], dtype=np.float32)

    for mode in ("score", "dump"):
        given = job(tmp_path, [[1, 2]], mode, scored_from=1, reference=None, output=str(tmp_path / "x.npy"))
        with pytest.raises(JobError, match="not finite in window 0"):
            perform(given, lambda *_: Broken())


def test_figures_of_a_row_are_their_definitions() -> None:
    rows = lm_harness.PIECE + 3
    torch.manual_seed(0)
    logits, other = torch.randn(rows, 50) * 4, torch.randn(rows, 50) * 4
    targets = torch.randint(50, (rows,))
    known = torch.log_softmax(other, -1)
    found = score_row(logits.numpy(), targets.numpy(), known.numpy())
    mine = torch.log_softmax(logits.double(), -1)
    kld = torch.nn.functional.kl_div(mine, known.double(), log_target=True, reduction="none").sum(-1)
    assert np.abs(found["nll"] + mine.gather(-1, targets[:, None])[:, 0].numpy()).max() < 1e-5
    assert np.abs(found["kld"] - kld.numpy()).max() < 1e-4
    assert found["agreed"].tolist() == (logits.argmax(-1) == other.argmax(-1)).tolist()


def test_memory_is_read() -> None:
    found = read_memory({"threads": 2, "seconds": 0.0})
    assert found["bytes_per_second"] > 1e8
