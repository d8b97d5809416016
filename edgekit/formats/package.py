"""What makes an exported folder stand alone: labels, tokenizer, a README and an example program without edgekit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

from edgekit.artifact import Task
from edgekit.model_config import pad_id, read_config
from edgekit.pictures import PIXELS, SCRIPT, settings_of
from edgekit.tokenizer_files import FAST, tokenizer_json

__all__ = ["write_package"]

EXAMPLES = Path(__file__).parent / "examples"
NEEDS = {
    "onnx": "onnxruntime tokenizers numpy",
    "gguf": "llama-cpp-python numpy",
    "openvino": "openvino tokenizers numpy",
}
PICTURE_FILES = f"""| `{PIXELS}` | how a picture becomes pixels |
| `{SCRIPT.name}` | the program that does so; `{{program}}` uses it |
"""
PROGRAMS = {  # examples/PROGRAM_FORMAT.py
    "text-classification": "classify",
    "token-classification": "tag",
    "question-answering": "answer",
    "sentence-similarity": "embed",
    "image-classification": "classify_image",
}
TITLES = {
    "text-classification": "A text classifier",
    "token-classification": "A tagger of words",
    "question-answering": "An answerer of questions",
    "sentence-similarity": "A sentence embedder",
    "image-classification": "A classifier of pictures",
}
FILES = {"openvino": "model.xml`, `model.bin"}  # the others: model.FORMAT

README = """# {title} as one {format} file

{outputs}, {inputs}{pair}. Made by edgekit; `manifest.json` says from what, by which
steps, and with which digests. Its figures (latency, accuracy, size) stand in the report of the run that made it.

    pip install {needs}
    python {program} {example}

| file | what |
|---|---|
| `{files}` | the model |
| `labels.json` | {settings} |
{tokenizer}| `{program}` | an example program; needs only the packages above |
| `manifest.json` | origin: parents, stage, config, library versions, sha256 of every file |
"""


def write_package(source: Path, task: Task, out: Path, file_format: Literal["onnx", "gguf", "openvino"]) -> None:
    """Write labels.json, README.md and a program into `out`, and copy the tokenizer where the format holds none."""
    program = PROGRAMS[task.kind]
    labels = {
        "task": task.kind,
        "labels": list(task.labels),
        "max_length": task.max_length,
        "segments": task.segments,
        "pair": task.pair,
        "pad_id": pad_id(read_config(source)),
    }
    answers = task.kind == "question-answering"
    if answers:
        labels |= {"overlap": task.overlap, "longest_answer": task.longest_answer}
    (out / "labels.json").write_text(json.dumps(labels, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    pictures = task.kind == "image-classification"
    if pictures:
        (out / PIXELS).write_text(json.dumps(settings_of(source), indent=1) + "\n", encoding="utf-8")
        shutil.copyfile(SCRIPT, out / SCRIPT.name)
    elif file_format != "gguf":
        (out / FAST).write_bytes(tokenizer_json(source))
    shutil.copyfile(EXAMPLES / f"{program}_{file_format}.py", out / f"{program}.py")
    text = README.format(
        title=TITLES[task.kind],
        program=f"{program}.py",
        format=file_format,
        files=FILES.get(file_format, f"model.{file_format}"),
        outputs=_outputs(task),
        settings=_settings(task),
        inputs="pictures of any size" if pictures else f"inputs up to {task.max_length} tokens",
        pair=", pairs of texts" if task.pair and not answers else "",
        needs=NEEDS[file_format].replace("tokenizers", "pillow") if pictures else NEEDS[file_format],
        example=_example(task),
        tokenizer=_reader(task, file_format, f"{program}.py"),
    )
    (out / "README.md").write_text(text, encoding="utf-8")


def _example(task: Task) -> str:
    if task.kind == "image-classification":
        return "some.png"
    if task.kind == "question-answering":
        return '"a question" "a text"'
    return '"first text" "second text"' if task.pair or task.kind == "sentence-similarity" else '"some text"'


def _settings(task: Task) -> str:
    known = "label names by output number" if task.labels else ""
    texts = "" if task.kind == "image-classification" else "longest input, padding"
    return ", ".join(part for part in (known, texts) if part)


def _reader(task: Task, file_format: str, program: str) -> str:
    """Lines of the table about what makes inputs of what is given."""
    if task.kind == "image-classification":
        return PICTURE_FILES.format(program=program)
    return "| `tokenizer.json` | the tokenizer |\n" if file_format != "gguf" else ""


def _outputs(task: Task) -> str:
    if task.kind == "question-answering":
        return "Answers are cut out of a text"
    return f"{len(task.labels)} labels" if task.labels else "`logits` is the embedding, pooled and of length 1"
