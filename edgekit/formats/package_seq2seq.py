"""What makes an exported encoder-decoder model's folder stand alone: tokenizer, settings, README and an example."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

from edgekit.artifact import Task
from edgekit.formats import marian_tokenizer
from edgekit.formats.package import EXAMPLES
from edgekit.nn.seq2seq import Greedy
from edgekit.tokenizer_files import tokenizer_json

__all__ = ["cut_otherwise", "write_seq2seq_package", "write_tokenizer"]

README = """# A text-to-text model as two ONNX files

Weights: {weights}; inputs up to {length} tokens. Made by edgekit; `manifest.json` says from what, by which steps, and
with which digests. Answers are greedy: the likeliest token each time, as Transformers gives with `num_beams=1`.

    pip install onnxruntime tokenizers numpy
    python generate.py "some text"

| file | what |
|---|---|
| `encoder.onnx` | reads the text once: keys and values for each layer of the decoder |
| `decoder.onnx` | the next token's logits and the cache, from tokens, what the encoder gave, and the cache before |
| `generation.json` | tokens that begin, end or are forced in an answer; longest input |
{tokenizers}
| `generate.py` | an example program; needs only the packages above |
| `manifest.json` | origin: parents, stage, config, library versions, sha256 of every file |
"""
ONE = "| `tokenizer.json` | the tokenizer |"
TWO = """| `tokenizer.json` | the tokenizer of what is read |
| `target_tokenizer.json` | that of what is written |"""


def write_seq2seq_package(source: Path, task: Task, greedy: Greedy, out: Path, weights: str) -> None:
    """Write generation.json, README.md, generate.py and the tokenizer into `out`.

    `weights`: what they are, in words. Raises ModelError for a tokenizer that the tokenizers library cannot express.
    """
    two = write_tokenizer(source, out)
    settings = {"max_length": task.max_length, **greedy.model_dump(mode="json")}
    (out / "generation.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    shutil.copyfile(EXAMPLES / "generate_seq2seq.py", out / "generate.py")
    text = README.format(weights=weights, length=task.max_length, tokenizers=TWO if two else ONE)
    (out / "README.md").write_text(text, encoding="utf-8")


def write_tokenizer(source: Path, out: Path) -> bool:
    """Write tokenizer.json, and for Marian target_tokenizer.json beside it; whether there are two."""
    if not (source / "tokenizer.json").is_file() and (source / marian_tokenizer.MODEL).is_file():
        marian_tokenizer.reader(source).save(str(out / "tokenizer.json"))
        marian_tokenizer.writer(source).save(str(out / "target_tokenizer.json"))
        return True
    (out / "tokenizer.json").write_bytes(tokenizer_json(source))
    return False


def cut_otherwise(source: Path, out: Path, texts: Sequence[str]) -> list[str]:
    """Texts that the files in `out` cut into other tokens than Transformers does by those in `source`."""
    if (source / "tokenizer.json").is_file():
        return []  # the same file
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it recommends a normalizer of punctuation; whoever has it sees the difference
        known = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    made = Tokenizer.from_file(str(out / "tokenizer.json"))
    return [text for text in texts if made.encode(text).ids != known(text)["input_ids"]]
