"""Export an encoder to ONNX, GGUF or OpenVINO IR, as a folder that stands alone; compared with torch first."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from edgekit.artifact import Artifact, Facts, Format, Manifest, Task
from edgekit.data.table import Table
from edgekit.errors import ParityError, StageError
from edgekit.stages.base import Config, Context, Outcome
from edgekit.tasks.base import agreement
from edgekit.tasks.encoders import is_ready, task_kind

if TYPE_CHECKING:
    from edgekit.evaluate import Predictions

__all__ = ["VERSION", "Export", "export"]

VERSION = 9
ONNX_TOLERANCE = 1e-4  # max |difference| of logits against torch float32
# llama.cpp computes GELU by its tanh approximation, from a half-precision table, in f32 files too: the error grows with
# the activations, and so with the logits. Rounding the weights to f16 alone costs a trained classifier as much.
HALF_TOLERANCE = 5e-3
HALF_RELATIVE = 5e-3  # of the largest |logit|; the larger of the two counts. Measured: 0.3e-3 to 1.8e-3 of it
EMBEDDING_TOLERANCE = 1e-3  # the same errors in a vector of length 1: 3e-4 of all-MiniLM's, in f32 and f16 files alike


class Export(Config):
    """Write the file that a runtime executes."""

    format: Literal["onnx", "gguf", "openvino"] = Field(
        default="onnx", description="ONNX Runtime's format, llama.cpp's, or OpenVINO's."
    )
    precision: Literal["f32", "f16"] = Field(
        default="f32", description="Number format of the weights; ONNX on CPU is f32, the others either."
    )
    rewrite: bool = Field(
        default=True,
        description="ONNX, OpenVINO: compute neither what the output never reads (a classifier's last layer past its "
        "first token) nor what no text changes (positions, past the longest input too).",
    )
    tolerance: float = Field(
        default=0.0,
        ge=0,
        description="Largest difference of logits from torch; 0 takes 1e-4 for ONNX and OpenVINO in f32, 1e-3 for an "
        "embedder's GGUF, else 5e-3 or 0.5% of the largest logit.",
    )
    check_rows: int = Field(default=64, ge=1, description="Rows of the data that the comparison with torch runs on.")


def export(source: Artifact, config: Export, out: Path, context: Context) -> Outcome:
    """Export `source` (hf) to `config.format`.

    Raises ParityError where the file's logits differ from torch's beyond the tolerance on real inputs, StageError where
    the format cannot express the model, ModelError for texts longer than it takes.
    """
    from edgekit.nn.architecture import check_task

    task = require_task(source)
    check_task(source.path, task)
    context.progress.say(f"exporting to {config.format}")
    notes = _write(source, task, config, out)
    write_deployable(source, task, out, config.format)
    table = _check_table(context, config.check_rows)
    reference, exported = _run_both(source, task, config, out, table, context)
    difference, agreement, rows = (
        _difference(reference, exported),
        _alike(source, table, reference, exported),
        min(config.check_rows, len(table)),
    )
    limit = _tolerance(config, task, reference)
    if not difference <= limit:
        raise ParityError(
            f"the exported file disagrees with torch: max |difference| of logits {difference:.2e} > {limit:.0e} "
            f"on {rows} rows ({agreement:.1%} answered alike)",
            hint="nothing was kept of this step; a larger tolerance lets it pass (--tolerance 0.02; of a recipe's step "
            "--set STEP.tolerance=0.02)",
        )
    facts = Facts(
        summary=f"{config.format} {config.precision}, within {difference:.1e} of torch on {rows} rows",
        touched=(draft(out, config.format, task).model_file.name,),
        warnings=tuple(notes),
        numbers={
            "max_difference": difference,
            "largest_logit": float(abs(reference.logits).max()),
            "tolerance": limit,
            "rows": rows,
            "agreement": agreement,
        },
    )
    return Outcome(config.format, facts, task, {"agreement": agreement})


def require_task(source: Artifact) -> Task:
    """The artifact's task. Raises StageError for a model that was never trained for one."""
    if source.task is None or not is_ready(source.task):
        raise StageError(
            "the model has no trained head",
            hint="fine-tune it first: edgekit finetune MODEL OUT --train FILE",
        )
    return source.task


def write_deployable(source: Artifact, task: Task, out: Path, file_format: Literal["onnx", "gguf", "openvino"]) -> None:
    """The rest of a folder that stands alone: labels.json, tokenizer, README.md and a program that runs the model."""
    from edgekit.formats.package import write_package

    write_package(source.path, task, out, file_format)


def copy_deployable(source: Path, out: Path, leave: str) -> None:
    """Copy what stands beside the model file `leave` (neither the weights that lie beside it, nor the manifest)."""
    for path in sorted(source.iterdir()):
        if path.is_file() and path.name not in (leave, Path(leave).with_suffix(".bin").name, "manifest.json"):
            shutil.copyfile(path, out / path.name)


def draft(out: Path, file_format: Format, task: Task) -> Artifact:
    """The unsealed folder as an artifact, so that it can be run before it counts."""
    manifest = Manifest(
        key="draft",
        format=file_format,
        stage="draft",
        stage_version=0,
        config={},
        parents={},
        files={},
        libraries={},
        facts=Facts(summary=""),
        task=task,
    )
    return Artifact(out, manifest)


def _write(source: Artifact, task: Task, config: Export, out: Path) -> list[str]:
    if config.format == "gguf":
        from edgekit.formats.gguf_encoder import obstacles, write_gguf

        problems = obstacles(source.path, task)
        if problems:
            raise StageError("GGUF cannot express this model", problems=tuple(problems))
        written = write_gguf(source.path, task, out / "model.gguf", config.precision)
        return list(written.notes)
    if config.format == "openvino":
        _write_openvino(source, task, config, out)
        return []
    if config.precision != "f32":
        raise StageError("ONNX on CPU is exported as f32", hint="quantize it afterwards; f16 is slower on CPUs")
    from edgekit.formats.onnx_encoder import write_onnx
    from edgekit.nn.load import load_classifier

    write_onnx(load_classifier(source.path, kind=task.kind), task, out / "model.onnx", rewrite=config.rewrite)
    return []


def _write_openvino(source: Artifact, task: Task, config: Export, out: Path) -> None:
    from edgekit.formats.onnx_encoder import write_onnx
    from edgekit.formats.openvino_ir import library, write_openvino
    from edgekit.nn.load import load_classifier

    library()  # before the export, which takes longer
    with tempfile.TemporaryDirectory(dir=out) as folder:
        stepping_stone = Path(folder) / "model.onnx"
        write_onnx(load_classifier(source.path, kind=task.kind), task, stepping_stone, rewrite=config.rewrite)
        write_openvino(stepping_stone, out / "model.xml", config.precision)


def _run_both(
    source: Artifact, task: Task, config: Export, out: Path, table: Table, context: Context
) -> tuple[Predictions, Predictions]:
    """Predictions of torch and of the exported file, on real inputs."""
    from edgekit.evaluate import predict, predict_torch

    reference = predict_torch(source, table, threads=context.threads)
    exported = predict(draft(out, config.format, task), table, threads=context.threads)
    return reference, exported


def _check_table(context: Context, rows: int) -> Table:
    table = context.data.get("validation") or context.data.get("unlabeled")
    if table is None:
        raise StageError("the comparison with torch needs real inputs", hint="give --validation FILE")
    return table.spread(rows)


def _difference(reference: Predictions, exported: Predictions) -> float:
    import numpy as np

    return float(np.max(np.abs(reference.logits - exported.logits)))


def _alike(source: Artifact, table: Table, reference: Predictions, exported: Predictions) -> float:
    """How much both answer alike; of embeddings, which may be of single texts, their own likeness."""
    from edgekit.evaluate import judge

    if (alike := task_kind(require_task(source)).alike) is not None:
        return alike(reference.logits, exported.logits)
    unlabeled = replace(table, labels=None)
    ours, theirs = (judge(source, found, unlabeled).answers for found in (exported, reference))
    return agreement(ours, theirs)


def _tolerance(config: Export, task: Task, reference: Predictions) -> float:
    if config.tolerance:
        return config.tolerance
    if config.format != "gguf" and config.precision == "f32":
        return ONNX_TOLERANCE
    if config.format == "gguf" and task.kind == "sentence-similarity":
        return EMBEDDING_TOLERANCE
    return max(HALF_TOLERANCE, HALF_RELATIVE * float(abs(reference.logits).max()))
