"""onnxruntime-genai's folders, with our grids in them: held against torch and the GGUF file of the same grids."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime_genai")

from edgekit.artifact import Artifact, Task
from edgekit.data.table import Table
from edgekit.errors import StageError
from edgekit.formats.genai import obstacles, write_genai
from edgekit.formats.genai_grids import put_grids
from edgekit.formats.gguf_decoder import decoder_tensors, write_gguf_decoder
from edgekit.formats.gguf_decoder_check import compare
from edgekit.formats.gguf_grids import plan_grids
from edgekit.formats.grid_file import GridFile
from edgekit.nn.decoders import load_decoder
from edgekit.stages.base import Context
from edgekit.stages.lm_quantize import LmQuantize, lm_quantize
from edgekit.tasks.language_modeling import Windows
from tests.conftest import bpe_spec
from tests.unit.formats.genai_sample import largest_difference

TASK = Task(kind="language-modeling", max_length=16)
TEXTS = Table(("the card is lost and the money is still not here", "please top up my card") * 40, name="train")


def decoder(folder: Path, family: str = "llama", *, tied: bool = True) -> Artifact:
    """A random decoder of 64 channels, rows of 64 and 128."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes: dict[str, object] = {"vocab_size": 400, "hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": tied}
    sizes |= {"max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(bpe_spec(list(TEXTS.texts[:2]))), encoding="utf-8")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return Artifact.outside(folder, TASK)


def on_grids(source: Artifact, out: Path, **options: object) -> Path:
    out.mkdir()
    lm_quantize(source, LmQuantize(windows=8, **options), out, Context(data={"train": TEXTS}))
    return out


def windows() -> Windows:
    return Windows(np.random.default_rng(0).integers(3, 400, (3, 16)).astype(np.int32), 8)


@pytest.fixture(scope="module")
def grids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with tied embeddings, on grids."""
    folder = tmp_path_factory.mktemp("llama")
    return on_grids(decoder(folder / "source"), folder / "grids")


@pytest.fixture(scope="module")
def plain(grids: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the builder makes of it in float32: query, key and value are one matrix."""
    out = tmp_path_factory.mktemp("plain")
    assert write_genai(grids, out, precision="fp32") == []
    return out


def test_grids_take_the_place_of_floats_bit_for_bit(grids: Path, plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "genai"
    shutil.copytree(plain, out, ignore=shutil.ignore_patterns("model.onnx*"))
    touched = put_grids(plain / "model.onnx", out / "model.onnx", GridFile(grids), accuracy_level=1)
    assert set(touched) == set(GridFile(grids))
    assert largest_difference(out, grids, windows()) < 1e-4
    assert_gguf_holds(grids, tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("family", "tied", "options"),
    [
        ("qwen3", False, {"symmetric": False, "embeddings": "int4", "head": "int4"}),
        ("qwen2", True, {"method": "rtn", "bits": 8, "block": 64, "head": "keep", "exclude": ("v_proj",)}),
    ],
)
def test_both_formats_hold_the_checkpoints_weights(
    tmp_path: Path, family: str, tied: bool, options: dict[str, object]
) -> None:
    source = decoder(tmp_path / "source", family, tied=tied)
    folder = on_grids(source, tmp_path / "grids", **options)
    out = tmp_path / "genai"
    out.mkdir()
    touched = write_genai(folder, out, precision="int4", accuracy_level=1)
    assert set(touched) == set(GridFile(folder))
    assert largest_difference(out, folder, windows()) < 1e-4
    assert_gguf_holds(folder, tmp_path / "model.gguf")


def assert_gguf_holds(folder: Path, file: Path) -> None:
    plan = plan_grids(folder)
    types = {t.name: "f32" for t in decoder_tensors(folder) if t.quantizable} | plan.types
    write_gguf_decoder(folder, file, types, encode=plan.encode, threads=1)
    assert gguf_weights(file, plan.types) == len(plan.types)
    assert compare(file, folder, windows(), threads=1).divergence < 1e-3


def gguf_weights(file: Path, types: dict[str, str]) -> int:
    """How many of these tensors have the type that was asked for."""
    import gguf

    kinds = {tensor.name: tensor.tensor_type.name.lower() for tensor in gguf.GGUFReader(file).tensors}
    return sum(kinds[name] == kind for name, kind in types.items())


def test_changed_weights_are_not_passed_off_as_the_grids(grids: Path, plain: Path, tmp_path: Path) -> None:
    held, name = dict(GridFile(grids)), "model.layers.1.mlp.up_proj"
    held[name] = replace(held[name], codes=held[name].codes ^ np.uint8(1))
    with pytest.raises(StageError, match=r"layers\.1\.mlp\.up_proj are not their grid's"):
        put_grids(plain / "model.onnx", tmp_path / "model.onnx", held, accuracy_level=4)
    folder = tmp_path / "changed"
    shutil.copytree(grids, folder)
    model = load_decoder(folder)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.mul_(1.001)
    model.save_pretrained(folder)
    plan = plan_grids(folder)
    with pytest.raises(StageError, match=r"layers\.1\.mlp\.up_proj are not their grid's"):
        write_gguf_decoder(folder, tmp_path / "model.gguf", plan.types, encode=plan.encode, threads=1)


def test_the_example_program_writes_what_transformers_writes(grids: Path, plain: Path, tmp_path: Path) -> None:
    assert largest_difference(plain, grids, windows()) < 1e-4
    import onnxruntime_genai

    from edgekit.formats.package import EXAMPLES

    out = tmp_path / "shipped"
    shutil.copytree(plain, out)
    tokenizer = onnxruntime_genai.Tokenizer(onnxruntime_genai.Model(str(out)))
    ids = tokenizer.encode("the card").tolist()
    model = load_decoder(grids)
    with torch.inference_mode():
        made = model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)[0, len(ids) :].tolist()
    program = out / "generate.py"
    program.write_bytes((EXAMPLES / "generate_genai.py").read_bytes())
    command = [sys.executable, str(program), "--tokens", "8", "--threads", "1", "the card"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8")
    whole = tokenizer.decode(np.asarray(made, dtype=np.int32)).rstrip("\ufffd")  # half a character is not printed
    assert done.stdout == f"the card{whole}\n"


def test_architectures_that_the_builder_does_not_name_are_told() -> None:
    assert obstacles({"architectures": ["LlamaForCausalLM"]}) == []
    assert "GPT2LMHeadModel" in obstacles({"architectures": ["GPT2LMHeadModel"]})[0].what
    assert obstacles({})


def test_what_the_builder_says_is_told(tmp_path: Path) -> None:
    folder = decoder(tmp_path / "source").path
    (folder / "model.safetensors").unlink()
    (tmp_path / "genai").mkdir()
    with pytest.raises(StageError, match="builder failed"):
        write_genai(folder, tmp_path / "genai")
