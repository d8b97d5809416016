"""Every kind of task through its own recipe, from a pretrained encoder to a measured int8 file, on real data.

English: all-MiniLM-L6-v2. Chinese, where no pretrained encoder is at hand: a small BERT with the tokens of
bert-base-chinese, first trained here to find masked tokens of Chinese texts. Digits: a small ViT from random weights.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.encoders_bed import MODEL, Bed
from benchmarks.record import Figure, data_folder
from edgekit.api import run, run_stage
from edgekit.artifact import Task
from edgekit.data.load import Columns, load_table
from edgekit.recipe import Scalar
from edgekit.report.schema import Report
from edgekit.stages.mlm_pretrain import MlmPretrain

__all__ = ["figures"]

INT8 = "onnx-int8"
BASE_CHINESE = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
SMALL_VIT = {"hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 512}
DIGIT = 28  # edge of a picture


@dataclass(frozen=True)
class Course:
    """A recipe, its task's main metric, what it learns from, and where its model comes from."""

    recipe: str
    metric: str
    params: Callable[[Bed, Path, Path], Mapping[str, Scalar]]  # of the shared sets and a folder to write to
    model: Callable[[Bed, Path], str] = lambda bed, sets: MODEL
    quick: Mapping[str, Scalar] = field(default_factory=lambda: {"epochs": 1, "student_epochs": 1})


def figures(bed: Bed) -> Iterator[Figure]:
    """Of each data set: what the int8 file loses of its teacher's score, with its speed and its size."""
    sets = data_folder()
    assert sets is not None  # `open_bed` has seen to it
    for name, course in COURSES.items():
        folder = bed.folder / f"task-{name}"
        folder.mkdir(parents=True, exist_ok=True)
        params = {"model": course.model(bed, sets), **course.params(bed, sets, folder)}
        params |= course.quick if bed.quick else {}
        store = bed.folder / "store"
        report = run(course.recipe, params, folder / "out", store=store, device="cpu", progress=bed.progress)
        yield _figure(name, course, report)


def _figure(name: str, course: Course, report: Report) -> Figure:
    base = report.baseline
    file = next(one for one in report.deployables if one.id == INT8)
    assert base is not None and file.accuracy_drop is not None and file.speedup is not None
    drop, speed = file.accuracy_drop, file.speedup
    scores = {one.id: one.metrics[course.metric] or 0.0 for one in (base, file)}
    told = ", ".join(f"{key} {score:.4f}" for key, score in scores.items())
    assert report.conditions is not None
    return Figure(
        figure=f"task.{name}.drop",
        value=drop.value,
        low=drop.low,
        high=drop.high,
        unit=course.metric,
        against="the teacher's file",
        n=report.conditions.n,
        conditions=f"{course.recipe}: {told}; {speed.value:.2f}x [{speed.low:.2f}, {speed.high:.2f}] faster, "
        f"{base.size_bytes / file.size_bytes:.1f}x smaller ({file.size_bytes / 1e6:.2f} MB), batch 1",
    )


def _words(bed: Bed, sets: Path, folder: Path) -> Mapping[str, Scalar]:
    data = sets / "wnut17"
    return {"train": str(data / "wnut17train.conll"), "test": str(data / "emerging.dev.conll")}


def _chinese_words(bed: Bed, sets: Path, folder: Path) -> Mapping[str, Scalar]:
    train, test = (sets / "uner_zh_gsdsimp" / f"zh_gsdsimp-ud-{name}.iob2" for name in ("train", "dev"))
    return {"train": str(train), "test": str(test)}


def _pairs(bed: Bed, sets: Path, folder: Path) -> Mapping[str, Scalar]:
    columns: dict[str, Scalar] = {"first_column": "1", "second_column": "2", "score_column": "3"}
    columns |= {"epochs": 2, "student_epochs": 1}
    return {
        name: str(sets / "stsb" / f"stsb-en-{end}.csv") for name, end in (("train", "train"), ("test", "dev"))
    } | columns


def _questions(bed: Bed, sets: Path, folder: Path) -> Mapping[str, Scalar]:
    return _split(json.loads((sets / "xquad" / "xquad.en.json").read_text(encoding="utf-8")), folder) | {
        "student_epochs": 4
    }


def _chinese_questions(bed: Bed, sets: Path, folder: Path) -> Mapping[str, Scalar]:
    whole = json.loads((sets / "cmrc2018" / "cmrc2018_dev.json").read_text(encoding="utf-8"))
    return _split(whole, folder, learned=(1, 3)) | {"max_length": 256, "overlap": 64, "student_epochs": 3}


def _split(whole: Mapping[str, list[object]], folder: Path, learned: Sequence[int] = (1, 2, 3, 4)) -> dict[str, Scalar]:
    """Of each five documents the first is for the test, and `learned` are for training."""
    documents = whole["data"]
    parts = {"train": [one for i, one in enumerate(documents) if i % 5 in learned], "test": documents[::5]}
    for name, part in parts.items():
        (folder / f"{name}.json").write_text(json.dumps({"version": "1.1", "data": part}), encoding="utf-8")
    return {name: str(folder / f"{name}.json") for name in parts}


def _topics(bed: Bed, sets: Path, folder: Path) -> Mapping[str, Scalar]:
    files = {"train": "train", "test": "dev"}
    data = {name: str(sets / "sib200" / "zho_Hans" / f"{end}.tsv") for name, end in files.items()}
    return data | {"label_column": "category", "epochs": 8}


def _digits(bed: Bed, sets: Path, folder: Path) -> Mapping[str, Scalar]:
    rows = {"train": range(1000 if bed.quick else 8000), "test": range(8000, 8200 if bed.quick else 10000)}
    for name, part in rows.items():
        if not (folder / name).is_dir():
            _write_digits(sets / "mnist", folder / name, part)
    return {name: str(folder / name) for name in rows} | {"keep_layers": 3}


def _write_digits(source: Path, folder: Path, rows: range) -> None:
    from PIL import Image

    with gzip.open(source / "t10k-images-idx3-ubyte.gz") as file:
        pictures = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, DIGIT, DIGIT)
    with gzip.open(source / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    for row in rows:
        (folder / str(labels[row])).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pictures[row]).save(folder / str(labels[row]) / f"{row:05}.png")


def _vit(bed: Bed, sets: Path) -> str:
    import torch
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    out = bed.folder / "small-vit"
    if not out.is_dir():
        torch.manual_seed(0)
        ViTModel(ViTConfig(image_size=DIGIT, patch_size=7, num_channels=1, **SMALL_VIT)).save_pretrained(out)
        edge = {"height": DIGIT, "width": DIGIT}
        ViTImageProcessor(size=edge, image_mean=[0.5], image_std=[0.5]).save_pretrained(out)
    return str(out)


def _chinese(bed: Bed, sets: Path) -> str:
    """A BERT that has read some Chinese: 848 paragraphs of CMRC2018, and UNER's training sentences."""
    out, texts = bed.folder / "chinese", bed.folder / "chinese.txt"
    whole = json.loads((sets / "cmrc2018" / "cmrc2018_dev.json").read_text(encoding="utf-8"))
    lines = [paragraph["context"] for document in whole["data"] for paragraph in document["paragraphs"]]
    marked = (sets / "uner_zh_gsdsimp" / "zh_gsdsimp-ud-train.iob2").read_text(encoding="utf-8").splitlines()
    lines += [line.removeprefix("# text = ") for line in marked if line.startswith("# text = ")]
    texts.write_text("\n".join(lines[:200] if bed.quick else lines), encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)  # what it is made from is in the store
    done = run_stage(
        "mlm-pretrain",
        MlmPretrain(epochs=1 if bed.quick else 4, learning_rate=5e-4),
        _random_chinese(bed, sets),
        out,
        tables={"unlabeled": load_table(str(texts), Columns())},
        task=Task(kind="text-classification", labels=(), max_length=128),
        store=bed.folder / "store",
        device="cpu",
        progress=bed.progress,
    )
    return str(done.artifact.path)


def _random_chinese(bed: Bed, sets: Path) -> str:
    import torch
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer

    out = bed.folder / "random-chinese"
    vocabulary = sets.parent / "tokenizers" / "bert-base-chinese.vocab.txt"
    if not out.is_dir():
        torch.manual_seed(0)
        tokenizer = BertTokenizer(str(vocabulary))
        BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **BASE_CHINESE)).save_pretrained(out)
        tokenizer.save_pretrained(out)
    return str(out)


COURSES = {
    "wnut17": Course("token-classifier", "entity_f1", _words),
    "uner_zh": Course("token-classifier", "entity_f1", _chinese_words, _chinese),
    "sib200_zh": Course("text-classifier", "accuracy", _topics, _chinese),
    "stsb": Course("sentence-embedder", "spearman", _pairs),
    "mnist": Course("image-classifier", "accuracy", _digits, _vit),
    "xquad_en": Course("question-answerer", "answer_f1", _questions),
    "cmrc2018": Course("question-answerer", "answer_f1", _chinese_questions, _chinese),
}
