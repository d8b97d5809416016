"""Runtimes of language models by format, and what is asked of them beyond times. They are fed token ids (windows).

Of a text-to-text model a row is the token ids that are read, and where type ids stand otherwise those of an answer.

JOB.json    as in `edgekit/jobs.py`; its inputs hold "rows". With "mode": "score"|"dump"|"generate" also
            {"scored_from": int, "reference": path|null, "output": path|null, "new_tokens": int}
RESULT.json score: {"nll": [[nats]], "top1": [[id]]}, and with a reference {"kld": [[nats]], "agreed": [[bool]]},
            of each row the tokens from `scored_from` on (text-to-text: of the answer); dump: {"shape": [windows,
            tokens, vocabulary]} (text-to-text: [tokens, vocabulary]) of the file that it wrote, which is such a
            reference; generate: {"tokens": [[id]]}
                bandwidth (`lm_bandwidth_worker.py`): {"bytes_per_second"} of memory that is read
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ConfigDict, JsonValue, ValidationError

from edgekit.artifact import ENCODER_KINDS, Artifact, Frozen, TaskKind
from edgekit.errors import DeviceError
from edgekit.jobs import Call, Inputs, Job, Place
from edgekit.runtimes import Runtimes
from edgekit.runtimes.base import Runtime, WorkerRuntime
from edgekit.runtimes.llamacpp import LLAMACPP
from edgekit.runtimes.onnxruntime import ONNXRUNTIME
from edgekit.runtimes.torch import TORCH

__all__ = [
    "LM_RUNTIMES",
    "SEQ2SEQ_RUNTIMES",
    "Answers",
    "Asked",
    "ask",
    "bandwidth_job",
    "inputs_of_rows",
    "read_answers",
    "runtimes_for",
]

BANDWIDTH_SECONDS = 0.5
LM_TORCH = replace(
    TORCH, libraries=("torch", "transformers"), worker="lm_torch_worker.py", tokenizer=None, batches=False
)
LM_RUNTIMES: Runtimes = {
    "hf": LM_TORCH,
    "gguf": replace(LLAMACPP, worker="lm_llama_worker.py"),
    "onnx-genai": WorkerRuntime(
        name="onnxruntime-genai",
        libraries=("onnxruntime-genai",),
        worker="lm_genai_worker.py",
        model="",
        tokenizer=None,
        provider="cpu",
        install="pip install 'edgekit[genai]'",
        batches=False,
    ),
}
SEQ2SEQ_RUNTIMES: Runtimes = {
    "onnx-seq2seq": replace(ONNXRUNTIME, worker="seq2seq_worker.py", model="", tokenizer=None, batches=False)
}


def runtimes_for(kind: TaskKind, runtimes: Runtimes) -> Runtimes:
    """What executes files of a task where `runtimes` execute classifiers.

    That is nothing for language models and text-to-text models in a browser, or by the Python that is pushed to a
    device; for text-to-text models on processors only.
    """
    if kind in ("text-classification", "sentence-similarity"):
        return runtimes
    if kind in ENCODER_KINDS:  # llama.cpp's heads answer once a text, and it pools texts alone
        return {name: runtime for name, runtime in runtimes.items() if name != "gguf"}
    if "hf" not in runtimes:
        return {}
    provider = runtimes["hf"].provider
    if kind == "text-to-text":
        return SEQ2SEQ_RUNTIMES if provider == "cpu" else {}
    return LM_RUNTIMES if provider == "cpu" else {"hf": replace(LM_TORCH, provider=provider)}


@dataclass(frozen=True)
class Asked(Job):
    """A job about what a language model says. `reference`: a .npy file of log-probabilities alone in its folder, which
    is named by its digest; `output`: where such a file is written, on this machine."""

    scored_from: int = 1
    reference: Path | None = None
    output: Path | None = None
    new_tokens: int = 0

    def wire(self, place: Place) -> dict[str, JsonValue]:
        """JOB.json for that place."""
        known: JsonValue = None
        if self.reference is not None:
            folder = self.reference.parent
            known = f"{place.bundle(folder, folder.name)}/{self.reference.name}"
        return {
            **super().wire(place),
            "scored_from": self.scored_from,
            "reference": known,
            "output": str(self.output) if self.output is not None else None,
            "new_tokens": self.new_tokens,
        }


class Answers(Frozen):
    """What came back: by row, figures of its tokens (see the top of this file), and what computed them."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    nll: list[list[float]] = []
    top1: list[list[int]] = []
    kld: list[list[float]] | None = None
    agreed: list[list[bool]] | None = None
    tokens: list[list[int]] = []
    bytes_per_second: float = 0.0


def inputs_of_rows(rows: Iterable[Sequence[int]], targets: Iterable[Sequence[int]] | None = None) -> Inputs:
    """Rows of token ids as inputs, with those of an answer to each where there are any. No text goes along."""
    read = [tuple(int(token) for token in row) for row in rows]
    told = [tuple(int(token) for token in row) for row in targets] if targets is not None else [()] * len(read)
    return Inputs((), None, max(map(len, read), default=0), rows=tuple(zip(read, told, strict=True)))


def ask(
    runtime: Runtime,
    artifact: Artifact,
    inputs: Inputs,
    call: Call,
    *,
    scored_from: int = 1,
    reference: Path | None = None,
    output: Path | None = None,
    new_tokens: int = 0,
) -> Asked:
    """The process to run, by `call.mode`. Raises DeviceError as `Runtime.job` does."""
    job = runtime.job(artifact, inputs, call)
    return Asked(**vars(job), scored_from=scored_from, reference=reference, output=output, new_tokens=new_tokens)


def read_answers(raw: bytes, name: str) -> Answers:
    """RESULT.json that a runtime's `parse` found sound. Raises DeviceError for one that is broken."""
    try:
        return Answers.model_validate_json(raw)
    except ValidationError as error:
        raise DeviceError(f"{name}: broken result ({error.errors()[0]['loc']})") from None


def bandwidth_job(artifact: Artifact, threads: int) -> Job:
    """Work that reads memory for a moment, where the artifact is measured: `Answers.bytes_per_second`."""
    call = Call("bandwidth", threads, seconds=BANDWIDTH_SECONDS, timeout=120.0)
    return Job(artifact, "lm_bandwidth_worker.py", "", None, inputs_of_rows([]), call)
