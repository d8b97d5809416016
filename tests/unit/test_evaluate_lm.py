"""Scores of the same weights in three runtimes, and what cannot be scored; against torch in this process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_lm import CONTEXT, sealed, some_windows, write_genai, write_gguf, write_hf
from tokenizers import Tokenizer

from edgekit.artifact import Artifact
from edgekit.data.table import Table
from edgekit.errors import DataError, DeviceError, UsageError
from edgekit.evaluate_lm import Parity, generation_parity, perplexity_ratio, reference_of, score_windows
from edgekit.interrogate import Venue, interrogate
from edgekit.nn.decoders import load_decoder
from edgekit.nn.lm_train import perplexity
from edgekit.tasks.language_modeling import Windows
from edgekit.zero_shot import blimp_score
from tests.conftest import bpe_spec

SENTENCES = ("my card is lost", "the money arrived", "where is my transfer")
VENUE = Venue(threads=1)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    spec = bpe_spec(list(SENTENCES), 300)
    folder = tmp_path_factory.mktemp("lm") / "hf"
    return write_hf(folder, spec, 300)


@pytest.fixture(scope="module")
def files(original: Artifact) -> dict[str, Artifact]:
    home = original.path.parent
    return {
        "hf": original,
        "f32": write_gguf(original, home / "f32"),
        "f16": write_gguf(original, home / "f16", "f16"),
        "q8_0": write_gguf(original, home / "q8_0", "q8_0"),
        "genai": write_genai(original, home / "genai"),
    }


@pytest.fixture(scope="module")
def venue(original: Artifact) -> Venue:
    """Answers are kept, so that torch starts only once for the same question."""
    return Venue(threads=1, cache=original.path.parent / "answers")


@pytest.fixture(scope="module")
def windows() -> Windows:
    return some_windows(3, 24, 300, 10)


@pytest.fixture(scope="module")
def expected(original: Artifact, windows: Windows) -> torch.Tensor:
    """Log-probabilities (windows, tokens that count, vocabulary)."""
    with torch.inference_mode():
        logits = load_decoder(original.path)(torch.from_numpy(windows.ids).long()).logits
    return torch.log_softmax(logits.double(), -1)[:, windows.scored_from - 1 : -1]


@pytest.fixture(scope="module")
def reference(original: Artifact, windows: Windows) -> Path:
    return reference_of(original, windows, original.path.parent / "cache", threads=1)


@pytest.mark.parametrize(
    ("name", "tolerance"), [("hf", 1e-5), ("genai", 1e-4), ("f32", 2e-2), ("f16", 2e-2)]
)  # llama.cpp keeps keys and values in float16
def test_every_runtime_finds_what_torch_finds(
    files: dict[str, Artifact],
    windows: Windows,
    expected: torch.Tensor,
    reference: Path,
    venue: Venue,
    name: str,
    tolerance: float,
) -> None:
    scores = score_windows(files[name], windows, reference=reference, venue=venue)
    targets = torch.from_numpy(windows.ids[:, windows.scored_from :]).long()
    nll = -expected.gather(-1, targets[..., None])[..., 0].numpy()
    assert scores.nll.shape == (3, 14)
    assert np.abs(scores.nll - nll).max() < tolerance
    assert scores.perplexity.value == pytest.approx(perplexity(float(nll.mean())), rel=tolerance)
    assert scores.perplexity.low < scores.perplexity.value < scores.perplexity.high
    assert scores.divergence is not None
    assert scores.divergence.value == pytest.approx(0, abs=tolerance**2 + 1e-6)
    assert np.mean(scores.top1 == expected.argmax(-1).numpy()) > 0.9


def test_the_divergence_is_the_definition_and_of_a_file_to_itself_zero(
    files: dict[str, Artifact], windows: Windows, expected: torch.Tensor, reference: Path, venue: Venue
) -> None:
    itself = score_windows(files["hf"], windows, reference=reference, venue=venue)
    assert itself.kld is not None
    assert np.all(itself.kld == 0)
    assert itself.agreement is not None
    assert itself.agreement.value == 1.0
    quantized = files["q8_0"]
    home = quantized.path.parent / "own"
    theirs = torch.from_numpy(np.load(reference_of(quantized, windows, home, threads=1))).double()
    by_hand = (expected.exp() * (expected - theirs)).sum(-1).numpy()
    scores = score_windows(quantized, windows, reference=reference, venue=VENUE)
    assert scores.kld is not None
    assert by_hand.mean() > 1e-5
    assert np.abs(scores.kld - by_hand).max() < 1e-5
    assert set(scores.metrics) == {"perplexity", "kld", "agreement"}
    ratio = perplexity_ratio(itself, scores)
    assert ratio.value == pytest.approx(scores.perplexity.value / itself.perplexity.value)
    with pytest.raises(DataError, match="cannot be paired"):
        perplexity_ratio(itself, replace(scores, nll=scores.nll[:2]))


def test_a_reference_is_computed_once(original: Artifact, windows: Windows, reference: Path) -> None:
    before = reference.stat().st_mtime_ns
    assert reference_of(original, windows, original.path.parent / "cache", threads=1) == reference
    assert reference.stat().st_mtime_ns == before
    assert [p.name for p in reference.parent.parent.iterdir()] == [reference.parent.name]


def test_a_large_reference_is_kept_in_half_the_bytes(
    expected: torch.Tensor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import lm_harness

    monkeypatch.setattr(lm_harness, "FULL_BYTES", 1000)
    rows = [[5] * 24] * len(expected)

    class Known:
        at = -1

        def rewind(self, length: int) -> None:
            self.at += 1

        def feed(self, ids: list[int], wanted: int) -> None:
            assert (len(ids), wanted) == (23, 14)

        def logits(self) -> np.ndarray:
            return expected[self.at % len(rows)].float().numpy() + 3

    assert lm_harness.dump(Known(), rows, 10, tmp_path / "a.npy") == {"shape": [3, 14, 300]}
    assert np.load(tmp_path / "a.npy").dtype == np.float16
    found = lm_harness.score(Known(), rows, 10, str(tmp_path / "a.npy"))
    assert 0 <= np.mean(found["kld"]) < 1e-5


def test_greedy_tokens_are_those_of_transformers(files: dict[str, Artifact], venue: Venue) -> None:
    prompts = some_windows(4, 12, 300, 1)
    with torch.inference_mode():
        given = torch.from_numpy(prompts.ids).long()
        options = {"do_sample": False, "max_new_tokens": 8, "min_new_tokens": 8, "eos_token_id": None}
        mask = torch.ones_like(given)
        told = load_decoder(files["hf"].path).generate(given, attention_mask=mask, pad_token_id=0, **options)
    for name in ("f32", "genai"):
        parity = generation_parity(files["hf"], files[name], prompts, tokens=8, venue=venue)
        assert (parity.exact, parity.tokens, parity.same.shape) == (1.0, 1.0, (4, 8))
        found, _ = interrogate("generate", files[name], prompts.ids.tolist(), venue, new_tokens=8)
        assert found.tokens == told[:, 12:].tolist()


def test_minimal_pairs_are_scored_by_all_their_tokens(files: dict[str, Artifact]) -> None:
    pairs = Table(SENTENCES, ("card my lost is", "the money the money", "where"))
    model = load_decoder(files["hf"].path)
    found = blimp_score(files["f32"], pairs, files["hf"].path, venue=VENUE)
    tokenizer = Tokenizer.from_file(str(files["hf"].path / "tokenizer.json"))
    for text, total in zip([*pairs.texts, *(pairs.pairs or ())], [*found.good, *found.bad], strict=True):
        ids = torch.tensor([[0, *tokenizer.encode(text, add_special_tokens=False).ids]])
        with torch.inference_mode():
            expected = -model(ids, labels=ids).loss * (ids.shape[1] - 1)
        assert total == pytest.approx(float(expected), abs=0.1)
    assert found.accuracy.value == np.mean(found.good > found.bad)
    with pytest.raises(DataError, match="no pairs"):
        blimp_score(files["f32"], Table(SENTENCES), files["hf"].path, venue=VENUE)


def test_answers_are_kept_by_file_and_tokens(files: dict[str, Artifact], windows: Windows, tmp_path: Path) -> None:
    venue = Venue(threads=1, cache=tmp_path)
    first = score_windows(files["f32"], windows, venue=venue)
    kept = list(tmp_path.iterdir())
    assert len(kept) == 1
    told = json.loads(kept[0].read_text())
    told["nll"][0][0] = 77.0
    kept[0].write_text(json.dumps(told))
    assert score_windows(files["f32"], windows, venue=venue).nll[0, 0] == 77.0
    kept[0].write_text("{")
    assert np.array_equal(score_windows(files["f32"], windows, venue=venue).nll, first.nll)
    score_windows(files["f16"], windows, venue=venue)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_continuation_that_differs_counts_up_to_there() -> None:
    parity = Parity(np.array([[True, True], [True, False], [False, False]]))
    assert (parity.exact, parity.tokens) == (1 / 3, 0.5)


@pytest.mark.parametrize("name", ["f32", "genai"])
def test_what_cannot_be_scored_is_told(
    files: dict[str, Artifact], windows: Windows, reference: Path, name: str
) -> None:
    refused: list[tuple[Windows, Path | None, str]] = [
        (some_windows(1, CONTEXT + 1, 300, 10), None, f"{CONTEXT + 1} tokens, but the model's context is {CONTEXT}"),
        (Windows(np.full((1, 8), 300, dtype=np.int32), 1), None, "token id 300, but the model's vocabulary has 300"),
        (windows.head(2), reference, "the reference holds"),
    ]
    for given, known, words in refused:
        with pytest.raises(DeviceError, match=words):
            score_windows(files[name], given, reference=known, venue=VENUE)
    with pytest.raises(DeviceError, match=f"context is {CONTEXT}"):
        interrogate("generate", files[name], [[5] * (CONTEXT - 4)], VENUE, new_tokens=5)


def test_a_window_longer_than_the_context_is_told_by_torch_too(files: dict[str, Artifact]) -> None:
    with pytest.raises(DeviceError, match=f"{CONTEXT + 1} tokens, but the model's context is {CONTEXT}"):
        score_windows(files["hf"], some_windows(1, CONTEXT + 1, 300, 10), venue=VENUE)


def test_files_that_nothing_runs_or_that_are_damaged_are_told(
    files: dict[str, Artifact], windows: Windows, tmp_path: Path
) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF, but no more")
    with pytest.raises(DeviceError, match=r"llama\.cpp cannot load"):
        score_windows(sealed(tmp_path, "gguf"), windows, venue=VENUE)
    with pytest.raises(DeviceError, match=r"genai_config\.json"):
        score_windows(sealed(tmp_path, "onnx-genai"), windows, venue=VENUE)
    with pytest.raises(UsageError, match="no runtime for language models as gguf"):
        score_windows(files["f32"], windows, venue=Venue(runtimes={}))
