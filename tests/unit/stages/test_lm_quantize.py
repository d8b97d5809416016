"""lm-quantize: plain checkpoints whose weights lie on grids, and what it says of them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from edgekit.artifact import Artifact, Task
from edgekit.data.table import Table
from edgekit.errors import MissingExtraError, StageError
from edgekit.formats.grid_file import GridFile
from edgekit.nn.decoders import load_decoder
from edgekit.stages.base import Context, Outcome
from edgekit.stages.lm_quantize import LmQuantize, lm_quantize

TASK = Task(kind="language-modeling", max_length=16)
TEXTS = Table(("the card is lost and the money is still not here", "please top up my card") * 80, name="train")
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "gpt2")
with_auto_round = pytest.mark.skipif(
    importlib.util.find_spec("auto_round") is None, reason="auto-round is not installed"
)


@pytest.fixture
def decoder(make_bpe: Callable[..., dict[str, object]], tmp_path: Path) -> Callable[..., Artifact]:
    """`decoder("llama", tied=True)`: a random decoder of 64 channels with a tokenizer."""

    def make(family: str = "llama", tied: bool = True) -> Artifact:
        from transformers import AutoConfig, AutoModelForCausalLM

        sizes: dict[str, object] = {"vocab_size": 400, "tie_word_embeddings": tied, "max_position_embeddings": 64}
        sizes |= {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
        if family == "gpt2":
            sizes |= {"n_embd": 64, "n_head": 4, "n_layer": 2, "n_inner": 128}
        else:
            sizes |= {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
            sizes |= {"num_key_value_heads": 2, "head_dim": 16}
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
        model.save_pretrained(tmp_path / "source")
        spec = make_bpe(list(TEXTS.texts[:2]))
        (tmp_path / "source" / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "pad_token": "<pad>"}
        (tmp_path / "source" / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        return Artifact.outside(tmp_path / "source", TASK)

    return make


def quantized(source: Artifact, out: Path, **options: object) -> Outcome:
    out.mkdir()
    return lm_quantize(source, LmQuantize(**{"windows": 16, **options}), out, Context(data={"train": TEXTS}))


def stored(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_becomes_a_plain_checkpoint_on_grids(
    decoder: Callable[..., Artifact], tmp_path: Path, family: str
) -> None:
    source = decoder(family)
    outcome = quantized(source, tmp_path / "out")
    weights, original, grids = stored(tmp_path / "out"), stored(source.path), GridFile(tmp_path / "out")
    layers = 4 if family in ("phi3", "gpt2") else 7
    assert len(grids) == len(outcome.facts.touched) == 2 * layers + 1 and not outcome.facts.skipped
    for name, grid in grids.items():
        held = weights[f"{name}.weight"].numpy()
        inputs_first = family == "gpt2" and ".h." in name
        np.testing.assert_array_equal(held.T if inputs_first else held, grid.values())
    assert weights.keys() == original.keys()
    untouched = weights.keys() - {f"{name}.weight" for name in grids}
    assert all(torch.equal(weights[name], original[name]) for name in untouched)
    assert load_decoder(tmp_path / "out").config.model_type == family


def test_gptq_is_closer_than_nearest_and_eight_bits_than_four(decoder: Callable[..., Artifact], tmp_path: Path) -> None:
    source = decoder("llama")
    ids = torch.randint(3, 400, (8, 16), generator=torch.Generator().manual_seed(0))
    errors = {}
    with torch.inference_mode():
        wanted = load_decoder(source.path)(ids).logits
        for name, options in {"gptq": {}, "rtn": {"method": "rtn"}, "int8": {"bits": 8}}.items():
            outcome = quantized(source, tmp_path / name, **options)
            errors[name] = float((load_decoder(tmp_path / name)(ids).logits - wanted).square().mean())
            assert 0 < outcome.facts.numbers["error_mean"] <= outcome.facts.numbers["error_max"] < 0.02
    assert errors["int8"] < 0.1 * errors["rtn"]
    gptq, rtn = (GridFile(tmp_path / name)["model.layers.0.mlp.down_proj"] for name in ("gptq", "rtn"))
    assert not np.array_equal(gptq.codes, rtn.codes)


def test_what_is_kept_and_what_does_not_fit_is_said(decoder: Callable[..., Artifact], tmp_path: Path) -> None:
    source = decoder("llama", tied=False)
    facts = quantized(source, tmp_path / "out", block=128, exclude=("up_proj",), head="keep").facts
    reasons = {skip.name: skip.reason for skip in facts.skipped}
    assert reasons["lm_head"] == "kept" and reasons["model.layers.1.mlp.up_proj"] == "excluded"
    assert reasons["model.layers.0.self_attn.q_proj"] == "rows of 64 do not divide into blocks of 128"
    assert set(GridFile(tmp_path / "out")) == {
        "model.layers.0.mlp.down_proj",
        "model.layers.1.mlp.down_proj",
        "model.embed_tokens",
    }


def test_tied_embeddings_stay_tied(decoder: Callable[..., Artifact], tmp_path: Path) -> None:
    quantized(decoder("llama"), tmp_path / "out")
    assert GridFile(tmp_path / "out")["model.embed_tokens"].kind.bits == 8
    model = load_decoder(tmp_path / "out")
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_nearest_and_hqq_need_no_text(decoder: Callable[..., Artifact], tmp_path: Path) -> None:
    source = decoder("llama")
    for name, options in {"rtn": {"windows": 0}, "hqq": {"symmetric": False}}.items():
        (tmp_path / name).mkdir()
        outcome = lm_quantize(source, LmQuantize(method=name, **options), tmp_path / name, Context())
        assert outcome.facts.numbers["error_of"] == "weights"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "give --train FILE"),
        ({"windows": 0}, "looks at activations"),
        ({"exclude": (".",), "head": "keep"}, "nothing left"),
    ],
)
def test_what_cannot_work_is_told(
    decoder: Callable[..., Artifact], tmp_path: Path, options: dict[str, object], told: str
) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(StageError, match=told):
        lm_quantize(decoder("llama"), LmQuantize(**options), tmp_path / "out", Context())


@pytest.mark.parametrize("options", [{"bits": 6}, {"block": 48}, {"bits": 8, "symmetric": False}, {"method": "hqq"}])
def test_grids_that_no_format_holds_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LmQuantize(**options)


def test_a_missing_library_is_named(decoder: Callable[..., Artifact], tmp_path: Path) -> None:
    if importlib.util.find_spec("auto_round") is not None:
        pytest.skip("auto-round is installed")
    with pytest.raises(MissingExtraError, match="auto-round"):
        quantized(decoder("llama"), tmp_path / "out", method="autoround")


@with_auto_round
@pytest.mark.parametrize("method", ["awq", "autoround"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_auto_rounds_integers_are_carried_over(
    decoder: Callable[..., Artifact], tmp_path: Path, method: str, symmetric: bool
) -> None:
    source = decoder("llama")
    options = {"method": method, "symmetric": symmetric, "exclude": ("v_proj",)}
    facts = quantized(source, tmp_path / "out", **options).facts
    assert len(facts.touched) == 13 and len(facts.skipped) == 2
    assert facts.numbers["error_max"] < (1e-12 if symmetric else 1e-3)
    weights, original = stored(tmp_path / "out"), stored(source.path)
    if method == "autoround":
        name = "model.layers.0.self_attn.v_proj.weight"
        assert torch.equal(weights[name], original[name])
    for name, grid in GridFile(tmp_path / "out").items():
        np.testing.assert_array_equal(weights[f"{name}.weight"].numpy(), grid.values())
