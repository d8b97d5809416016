from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from edgekit.artifact import Artifact, Task
from edgekit.data.table import Table
from edgekit.errors import ModelError, ParityError, StageError
from edgekit.formats import onnx_seq2seq
from edgekit.nn.seq2seq import greedy_of, load_seq2seq
from edgekit.source import open_model
from edgekit.stages.base import Context, Outcome
from edgekit.stages.seq2seq_export import Seq2SeqExport, seq2seq_export
from tests.unit.seq2seq_sample import TEXTS, tiny_seq2seq

CONTEXT = Context(data={"validation": Table(TEXTS)}, threads=1)
QUICK = Seq2SeqExport(check_rows=6, check_tokens=12)
# what real checkpoints of each family ask for
ASKED: dict[str, dict[str, Any]] = {
    "t5": {},
    "marian": {
        "bad_words_ids": [[0], [7]],
        "forced_bos_token_id": 1,
        "forced_eos_token_id": 2,
        "num_beams": 4,
        "no_repeat_ngram_size": 3,
    },
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Artifact, Outcome, Path]]:
    """Each family's model, and what was made of it."""
    found = {}
    for family, generation in ASKED.items():
        source = tiny_seq2seq(tmp_path_factory.mktemp(family), family, **generation)
        out = tmp_path_factory.mktemp(f"{family}-onnx")
        found[family] = source, seq2seq_export(source, QUICK, out, CONTEXT), out
    return found


@pytest.mark.parametrize("family", ASKED)
def test_answers_are_those_of_transformers(family: str, exported: dict[str, Any]) -> None:
    _, outcome, _ = exported[family]
    numbers = outcome.facts.numbers
    assert outcome.format == "onnx-seq2seq"
    assert numbers["same_answers"] == numbers["texts"] == 6
    assert numbers["max_difference"] < 1e-4
    assert numbers["tokens"] > 6


@pytest.mark.parametrize("family", ASKED)
def test_the_folder_generates_what_transformers_does_with_its_own_settings(
    family: str, exported: dict[str, Any]
) -> None:
    """The example program against `generate` with the checkpoint's generation_config.json but for its beams."""
    from transformers import AutoTokenizer, DynamicCache, EncoderDecoderCache

    source, _, out = exported[family]
    model, tokenizer = load_seq2seq(source.path), AutoTokenizer.from_pretrained(source.path)
    options: dict[str, Any] = {"num_beams": 1, "no_repeat_ngram_size": 0, "max_new_tokens": 9}

    def transformers_answer(text: str) -> str:
        given = tokenizer(text, return_tensors="pt")
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        with torch.no_grad():
            ids = model.generate(
                given["input_ids"], attention_mask=given["attention_mask"], past_key_values=cache, **options
            )
        return str(tokenizer.decode(ids[0], skip_special_tokens=True))

    text, wanted = next((t, a) for t in TEXTS if (a := transformers_answer(t)))  # a random model may say nothing
    command = [sys.executable, "-I", str(out / "generate.py"), text, "--tokens", "9", "--threads", "1"]
    answer = subprocess.run(command, capture_output=True, check=True, timeout=120).stdout.decode("utf-8")
    assert answer == f"{wanted}\n"


def test_a_batch_with_padding_answers_as_its_texts_alone(exported: dict[str, Any]) -> None:
    from edgekit.formats.examples.generate_seq2seq import Generator

    for _, _, out in exported.values():
        generator = Generator(out, threads=1)
        rows = np.array([[5, 9, 30, 2], [8, 2, 0, 0]])
        mask = (rows > 0).astype(np.int64)
        made = generator.encoder.run(generator.cross, {"input_ids": rows, "attention_mask": mask})
        source = {"attention_mask": mask, **dict(zip(generator.cross, made, strict=True))}
        empty = {name: np.repeat(value, 2, axis=0) for name, value in generator.empty().items()}
        feeds = {"input_ids": np.array([[0, 4], [0, 4]]), **source, **empty}
        together = generator.decoder.run(["logits"], feeds)[0]
        for row, length in enumerate((4, 2)):
            alone, _ = generator.step([0, 4], generator.read(rows[row, :length].tolist()), generator.empty())
            np.testing.assert_allclose(together[row], alone, atol=1e-4)


def test_the_folder_stands_alone(exported: dict[str, Any]) -> None:
    _, _, out = exported["t5"]
    named = re.findall(r"`([\w.]+)`", (out / "README.md").read_text(encoding="utf-8"))
    assert {"encoder.onnx", "decoder.onnx", "generation.json", "tokenizer.json", "generate.py"} <= set(named)
    missing = {name for name in named if not (out / name).is_file()}
    assert missing == {"manifest.json"}  # the store writes it


def test_no_matrix_is_stored_twice_for_the_cache(exported: dict[str, Any]) -> None:
    """What both files hold is the embedding; the decoder's own cross-attention keys and values are the encoder's."""
    source, _, out = exported["t5"]
    held = sum(path.stat().st_size for path in (out / "encoder.onnx", out / "decoder.onnx"))
    embedding = 4 * 300 * 32
    assert held < (source.path / "model.safetensors").stat().st_size + 2 * embedding + 150_000


def test_settings_that_a_greedy_answer_does_without_are_told(exported: dict[str, Any]) -> None:
    warnings = {family: outcome.facts.warnings for family, (_, outcome, _) in exported.items()}
    assert warnings["t5"] == ()
    assert "num_beams=4, no_repeat_ngram_size" in warnings["marian"][0]


@pytest.fixture
def written(exported: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stage takes up T5's files where it would write the same ones again, which takes seconds."""
    folder: Path = exported["t5"][2]

    def copy(_: Any, out: Path) -> None:
        for name in ("encoder.onnx", "decoder.onnx"):
            shutil.copyfile(folder / name, out / name)

    monkeypatch.setattr(onnx_seq2seq, "write_seq2seq", copy)
    return folder


@pytest.fixture
def int8(exported: dict[str, Any], written: Path, tmp_path: Path) -> tuple[Outcome, Path]:
    (tmp_path / "int8").mkdir()
    config = QUICK.model_copy(update={"precision": "int8"})
    return seq2seq_export(exported["t5"][0], config, tmp_path / "int8", CONTEXT), tmp_path / "int8"


def test_int8_is_smaller_and_held_against_the_original(int8: tuple[Outcome, Path], exported: dict[str, Any]) -> None:
    outcome, out = int8
    _, plain, folder = exported["t5"]
    for name in ("encoder.onnx", "decoder.onnx"):
        assert (out / name).stat().st_size < 0.7 * (folder / name).stat().st_size
    numbers = outcome.facts.numbers
    assert plain.facts.numbers["kl_divergence"] < 1e-6 < numbers["kl_divergence"] < 0.5
    assert outcome.metrics["agreement"] > 0.7
    kinds = {node.op_type for node in onnx.load(str(out / "decoder.onnx")).graph.node}
    assert "MatMulInteger" in kinds


def test_every_matrix_of_the_model_is_quantized(int8: tuple[Outcome, Path]) -> None:
    outcome, out = int8
    for name in ("encoder.onnx", "decoder.onnx"):
        graph = onnx.load(str(out / name)).graph
        floats = {t.name for t in graph.initializer if t.data_type == 1 and len(t.dims) == 2 and np.prod(t.dims) > 300}
        assert not floats
    assert {"encoder.block.0.layer.1.DenseReluDense.wi", "lm_head"} <= set(outcome.facts.touched)


def test_what_is_excluded_stays_as_it_is(exported: dict[str, Any], written: Path, tmp_path: Path) -> None:
    config = QUICK.model_copy(update={"precision": "int8", "exclude": ("lm_head",)})
    touched = seq2seq_export(exported["t5"][0], config, tmp_path, CONTEXT).facts.touched
    assert touched
    assert not any("lm_head" in name for name in touched)


def test_a_limit_that_int8_breaks_is_a_parity_error(exported: dict[str, Any], written: Path, tmp_path: Path) -> None:
    config = QUICK.model_copy(update={"precision": "int8", "max_divergence": 1e-7})
    with pytest.raises(ParityError, match="disagree with torch: KL divergence"):
        seq2seq_export(exported["t5"][0], config, tmp_path, CONTEXT)


def test_a_file_that_answers_otherwise_does_not_count(
    exported: dict[str, Any], written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real mismatch: the keys and values of the cross-attention change places."""
    true: Callable[..., None] = onnx_seq2seq.write_seq2seq

    def swapped(model: Any, out: Path) -> None:
        true(model, out)
        file = onnx.load(str(out / "encoder.onnx"))
        names = [value.name for value in file.graph.output]
        other = dict(
            zip(names, [name for pair in zip(names[1::2], names[::2], strict=True) for name in pair], strict=True)
        )
        for node in file.graph.node:
            node.output[:] = [other.get(name, name) for name in node.output]
        onnx.save(file, str(out / "encoder.onnx"))

    monkeypatch.setattr(onnx_seq2seq, "write_seq2seq", swapped)
    with pytest.raises(ParityError, match="disagree with torch"):
        seq2seq_export(exported["t5"][0], QUICK, tmp_path, CONTEXT)


def test_the_folder_of_a_model_says_its_task(exported: dict[str, Any]) -> None:
    for family, (source, _, _) in exported.items():
        task = open_model(str(source.path)).task
        assert task == Task(kind="text-to-text", max_length=512 if family == "t5" else 64)


def test_what_cannot_be_exported_is_refused(exported: dict[str, Any], tmp_path: Path, tiny: Any) -> None:
    with pytest.raises(StageError, match="encoder-decoder models"):
        seq2seq_export(Artifact.outside(exported["t5"][0].path, None), QUICK, tmp_path, Context())
    with pytest.raises(StageError, match="needs real texts"):
        seq2seq_export(exported["t5"][0], QUICK, tmp_path, Context(threads=1))
    with pytest.raises(ModelError, match="no encoder-decoder model of type 'bert'"):
        load_seq2seq(tiny("bert"))


def test_a_model_that_names_no_first_token_is_refused(tmp_path: Path) -> None:
    model = load_seq2seq(tiny_seq2seq(tmp_path, "t5").path)
    model.generation_config.decoder_start_token_id = model.generation_config.bos_token_id = None
    with pytest.raises(ModelError, match="decoder_start_token_id"):
        greedy_of(model)


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Seq2SeqExport.model_fields.values())
