"""What the parts of the decoders' benchmark share: the small model with its texts, and how files are compared.

Texts are stories, plays and Wikipedia. The first four fifths of each are there to calibrate and to train on; files are
measured on the rest, and on the questions' contexts of XQuAD: Wikipedia that the model never saw.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import data_folder
from edgekit.api import run_stage
from edgekit.artifact import Artifact, Task
from edgekit.cli.console import Live
from edgekit.data.table import SplitName, Table
from edgekit.errors import StageError, UsageError
from edgekit.formats.gguf_decoder_check import Llama
from edgekit.formats.gguf_quantize import captured_log
from edgekit.progress import Progress
from edgekit.stages.base import Config
from edgekit.tasks.language_modeling import Windows, make_windows

__all__ = [
    "DRAWS",
    "LENGTH",
    "Bed",
    "Doubles",
    "bootstrap",
    "divergences",
    "llama_quantize",
    "log_probabilities",
    "open_bed",
]

LENGTH = 256
SEEN = 0.8  # of each text; what comes after it is held out
DRAWS = 2000  # of windows, for an interval
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Bed:
    """The small model, the shared data, and whether this run only shows that it runs."""

    model: Path
    sets: Path
    quick: bool
    progress: Progress

    @property
    def task(self) -> Task:
        return Task(kind="language-modeling", max_length=LENGTH)

    @property
    def original(self) -> Artifact:
        return Artifact.outside(self.model, self.task)

    @cached_property
    def seen(self) -> dict[str, str]:
        return {name: text[: _cut(text)] for name, text in self._sources.items()}

    @cached_property
    def unseen(self) -> dict[str, str]:
        articles = json.loads((self.sets / "xquad" / "xquad.en.json").read_text(encoding="utf-8"))["data"]
        contexts = "\n".join(paragraph["context"] for article in articles for paragraph in article["paragraphs"])
        late = {name: text[_cut(text) :] for name, text in self._sources.items() if name != "tinyshakespeare"}
        return {**late, "xquad": contexts}

    @property
    def tables(self) -> dict[SplitName, Table]:
        """What stages are given: of each text that is not held out a tenth to validate on, the rest to learn from."""
        cuts = {text: len(text) * 9 // 10 for text in self.seen.values()}
        train, validation = (text[:cut] for text, cut in cuts.items()), (text[cut:] for text, cut in cuts.items())
        return {"train": Table(tuple(train), name="train"), "validation": Table(tuple(validation), name="validation")}

    @cached_property
    def calibration(self) -> Windows:
        return self._windows(self.seen)

    @cached_property
    def held_out(self) -> Windows:
        return self._windows(self.unseen)

    @property
    def _sources(self) -> dict[str, str]:
        return {
            "wikitext2": (self.sets / "wikitext2_raw" / "wiki.valid.raw").read_text(encoding="utf-8"),
            "tinystories": (self.sets / "tinystories" / "tinystories_head.txt").read_text(encoding="utf-8"),
            "tinyshakespeare": (self.sets / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8"),
        }

    def stage(self, name: str, config: Config, model: Path, out: Path, store: Path, teacher: str = "") -> Artifact:
        """One stage of edgekit's, on the texts that are there to calibrate and to train on."""
        done = run_stage(
            name,
            config,
            str(model),
            out,
            tables=self.tables,
            teachers=[teacher] if teacher else [],
            task=self.task,
            store=store,
            progress=self.progress,
        )
        return done.artifact

    def _windows(self, sources: Mapping[str, str]) -> Windows:
        """As many of each text."""
        most = 4 if self.quick else 32
        parts = [make_windows(self.model, Table((t,), name=n), self.task, most=most) for n, t in sources.items()]
        return Windows(np.concatenate([part.ids for part in parts]), parts[0].scored_from)


def open_bed(*, quick: bool) -> Bed:
    """Raises UsageError where the shared data are not beside the checkout."""
    sets = data_folder()
    if sets is None:
        raise UsageError("the shared data sets are not beside the checkout")
    return Bed(sets.parent / "models" / "llama-6m", sets, quick, Live())


def _cut(text: str) -> int:
    return int(SEEN * len(text))


def llama_quantize(source: Path, out: Path, preset: str, importance: Mapping[str, Floats] | None = None) -> None:
    """llama.cpp's own quantizer, maybe with an importance matrix. Raises StageError where it refuses."""
    from llama_cpp import llama_cpp as llama

    given = importance or {}
    matrix = (llama.llama_model_imatrix_data * (len(given) + 1))()  # the last one stays empty: the end mark
    held = [np.ascontiguousarray(values, dtype=np.float32) for values in given.values()]
    for slot, name, values in zip(matrix, given, held, strict=False):
        slot.name, slot.size = name.encode(), values.size
        slot.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    params = llama.llama_model_quantize_default_params()
    params.ftype = getattr(llama, f"LLAMA_FTYPE_MOSTLY_{preset.upper()}")
    if given:
        params.imatrix = matrix
    with captured_log(llama) as lines:
        llama.llama_backend_init()
        status = llama.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(params))
    if status != 0:
        raise StageError(f"llama.cpp could not quantize to {preset}", hint=" ".join(lines[-2:]))


def log_probabilities(file: Path, windows: Windows) -> list[Floats]:
    """(tokens, vocabulary) of each window's tokens that count, by stock llama.cpp."""
    with Llama(file, LENGTH) as model:
        logits = [model.logits(ids)[windows.scored_from :] for ids in windows.ids]
    return [values - np.logaddexp.reduce(values, axis=1, keepdims=True) for values in logits]


def divergences(wanted: list[Floats], found: list[Floats]) -> Doubles:
    """Mean KL divergence, in nats a token, of each window (windows,)."""
    return np.asarray([(np.exp(p) * (p - q)).sum(1).mean(dtype=np.float64) for p, q in zip(wanted, found, strict=True)])


def bootstrap(ours: Doubles, theirs: Doubles) -> tuple[float, float]:
    """95% interval of the ratio of means ours / theirs, over windows (windows,), paired."""
    draws = np.random.default_rng(0).integers(0, len(ours), (DRAWS, len(ours)))
    low, high = np.quantile(ours[draws].sum(1) / theirs[draws].sum(1), [0.025, 0.975])
    return float(low), float(high)
