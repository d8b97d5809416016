"""The whole list of stages. Adding one is a file beside this one and an entry here; nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from edgekit.artifact import ENCODER_KINDS

if TYPE_CHECKING:
    from edgekit.artifact import Artifact, TaskKind
    from edgekit.stages.base import Config, Context, Outcome, SplitName

    Function = Callable[[Artifact, Config, Path, Context], Outcome]

__all__ = ["STAGES", "Stage"]


@dataclass(frozen=True)
class Stage:
    """One stage: what it takes, what it gives, and the libraries its result depends on (they are in the cache key)."""

    name: str
    summary: str
    accepts: tuple[str, ...]  # formats of the source
    gives: str  # format of the result; "source" where it is that of the source, "config" where the config names it
    reads: tuple[SplitName, ...] = ()  # splits it uses where they are given (they are in the cache key)
    needs: tuple[SplitName, ...] = ()  # splits it cannot do without
    teachers: int = 0  # how many it may learn from; where it may, it needs one
    long_texts: bool = False  # of plain text it reads long pieces, not a text a line
    trains: bool = False  # in several processes, where they were started, all of them work on it
    task: TaskKind = "text-classification"
    libraries: tuple[str, ...] = ("torch", "transformers", "tokenizers")

    def config(self) -> type[Config]:
        """The config model; importing it imports no heavy library."""
        return cast("type[Config]", getattr(self._module(), self.name.title().replace("-", "")))

    def function(self) -> Function:
        return cast("Function", getattr(self._module(), self.module))

    @property
    def module(self) -> str:
        """Name of its file and function: `lm-export` is `lm_export`."""
        return self.name.replace("-", "_")

    @property
    def exports(self) -> bool:
        """Whether it writes the first file that a runtime executes, in a format that its config names."""
        return self.gives == "config"

    def serves(self, kind: TaskKind) -> bool:
        """Whether it works on models for such a task: an encoder's stages do for all of theirs."""
        return self.task == kind or {self.task, kind} <= set(ENCODER_KINDS)

    def counterpart(self, kind: TaskKind) -> str:
        """The stage that does the same for that kind of task; empty where there is none."""
        other = PREFIXES.get(kind, "") + self.name.removeprefix(PREFIXES.get(self.task, ""))
        return other if other in STAGES else ""

    @property
    def version(self) -> int:
        return cast("int", self._module().VERSION)

    def _module(self) -> ModuleType:
        return import_module(f"edgekit.stages.{self.module}")


PREFIXES: dict[TaskKind, str] = {"language-modeling": "lm-", "text-to-text": "seq2seq-"}  # of stages' names
MANY = 16
HF_LIBRARIES = ("torch", "transformers", "tokenizers")
ONNX_LIBRARIES = (*HF_LIBRARIES, "onnx", "onnx-ir", "onnxscript", "onnxruntime")

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "finetune",
            "Train a model on labelled data.",
            accepts=("hf",),
            gives="hf",
            reads=("train", "validation"),
            needs=("train", "validation"),
            trains=True,
        ),
        Stage(
            "distill",
            "Train a small model to answer as a teacher does.",
            accepts=("hf",),
            gives="hf",
            reads=("train", "validation", "unlabeled"),
            needs=("train", "validation"),
            trains=True,
            teachers=MANY,
        ),
        Stage(
            "mlm-pretrain",
            "Train an encoder to find masked tokens of your texts, before it is fine-tuned.",
            accepts=("hf",),
            gives="hf",
            reads=("unlabeled", "train", "validation"),
            long_texts=True,
            trains=True,
        ),
        Stage("student", "Make a smaller model of a given shape from a larger one.", accepts=("hf",), gives="hf"),
        Stage("recase", "Show an uncased encoder which words have a capital letter.", accepts=("hf",), gives="hf"),
        Stage(
            "prune",
            "Remove layers, heads, FFN neurons and vocabulary.",
            accepts=("hf",),
            gives="hf",
            reads=("train", "validation", "unlabeled"),
        ),
        Stage(
            "trim",
            "Remove heads and FFN neurons within a measured budget, without labels or training.",
            accepts=("hf",),
            gives="hf",
            reads=("train", "unlabeled"),
            libraries=ONNX_LIBRARIES,
        ),
        Stage(
            "factorize",
            "Replace matrices by products of two thin ones.",
            accepts=("hf",),
            gives="hf",
            reads=("train", "unlabeled"),
        ),
        Stage(
            "export",
            "Write ONNX, GGUF or OpenVINO IR, compared with torch.",
            accepts=("hf",),
            gives="config",
            reads=("validation", "unlabeled"),
            libraries=(*ONNX_LIBRARIES, "gguf", "llama-cpp-python", "openvino"),
        ),
        Stage(
            "quantize",
            "Fewer bits, in the file's own format.",
            accepts=("onnx", "gguf", "openvino"),
            gives="source",
            reads=("train", "validation", "unlabeled"),
            libraries=("onnx", "onnx-ir", "onnxruntime", "tokenizers", "llama-cpp-python", "openvino", "nncf"),
        ),
        Stage(
            "lm-finetune",
            "Train a language model on texts or chats.",
            accepts=("hf",),
            gives="hf",
            reads=("train", "validation"),
            needs=("train", "validation"),
            trains=True,
            task="language-modeling",
            libraries=(*HF_LIBRARIES, "peft"),
        ),
        Stage(
            "lm-distill",
            "Train a small language model to answer as a teacher does.",
            accepts=("hf",),
            gives="hf",
            reads=("train", "validation", "unlabeled"),
            needs=("train", "validation"),
            trains=True,
            teachers=1,
            task="language-modeling",
        ),
        Stage(
            "lm-prune",
            "Remove layers, heads, FFN neurons, width and vocabulary of a language model.",
            accepts=("hf",),
            gives="hf",
            reads=("train", "validation", "unlabeled"),
            task="language-modeling",
        ),
        Stage(
            "lm-quantize",
            "Find a language model's int4 or int8 weights once, for every format.",
            accepts=("hf",),
            gives="hf",
            reads=("train", "unlabeled"),
            task="language-modeling",
        ),
        Stage(
            "lm-export",
            "Write a language model as GGUF or for onnxruntime-genai.",
            accepts=("hf",),
            gives="config",
            reads=("train", "validation", "unlabeled"),
            task="language-modeling",
            libraries=(*HF_LIBRARIES, "gguf", "llama-cpp-python", "sentencepiece", "onnxruntime-genai", "onnxruntime"),
        ),
        Stage(
            "seq2seq-export",
            "Write an encoder-decoder model as ONNX, its answers compared with Transformers.",
            accepts=("hf",),
            gives="config",
            reads=("validation", "unlabeled", "train"),
            task="text-to-text",
            libraries=ONNX_LIBRARIES,
        ),
    )
}
