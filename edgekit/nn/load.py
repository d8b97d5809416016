"""Loading and saving an encoder with its head as a Transformers folder; `edits.json` says what `config.json` cannot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import Field, ValidationError

from edgekit.artifact import Frozen, TaskKind
from edgekit.errors import ModelError
from edgekit.model_config import SPAN
from edgekit.nn.architecture import check_architecture, open_config, reads_pictures, sound
from edgekit.nn.embedder import Embedders, pooling_of, set_pooling
from edgekit.nn.families import family_of
from edgekit.nn.layers import backbone, encoder_layers, hidden_width
from edgekit.pictures import PREPROCESSOR
from edgekit.sentence_modules import read_pooling, write_modules
from edgekit.tasks.encoders import ENCODER_TASKS
from edgekit.tokenizer_files import has_tokenizer, tokenizer_files

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = [
    "EDITS",
    "Edits",
    "backbone",
    "check_folder",
    "copy_tokenizer",
    "encoder_layers",
    "is_trained",
    "load_checkpoint",
    "load_classifier",
    "model_class",
    "read_edits",
    "save_model",
]

EDITS = "edits.json"
TWO_HEADS = ("cls_classifier.", "distillation_classifier.")  # DeiT's, in a class that is not loaded here


class Edits(Frozen):
    """Shapes that no `config.json` key can express. Applied to a freshly built model before its weights are loaded."""

    schema_version: int = 1
    heads: dict[int, int] = Field(default_factory=dict)  # layer -> heads that are left
    ffn: dict[int, int] = Field(default_factory=dict)  # layer -> FFN neurons that are left
    low_rank: dict[str, int] = Field(default_factory=dict)  # module path from the model -> rank

    @property
    def empty(self) -> bool:
        return not (self.heads or self.ffn or self.low_rank)


def read_edits(folder: Path) -> Edits:
    """The folder's edits; empty where it has none. Raises ModelError for a damaged file."""
    path = folder / EDITS
    if not path.exists():
        return Edits()
    try:
        return Edits.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ModelError(f"{path}: {error.errors()[0]['msg']}") from None


def load_classifier(
    folder: Path,
    labels: tuple[str, ...] | None = None,
    *,
    kind: TaskKind = "text-classification",
    device: str = "cpu",
) -> PreTrainedModel:
    """A model for an encoder's task in float32, eval mode, from a folder of config.json + safetensors (+ edits.json).

    `labels`: give it a new head for these label names where the folder's own labels are others (fine-tuning starts so).
    Raises ModelError for a pickle, missing weights, or an unsupported architecture. No code of the folder is run.
    """
    import torch
    from safetensors.torch import load_file
    from transformers.utils import logging

    from edgekit.nn.surgery import rebuild

    check_folder(folder)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    check_architecture(folder)
    config = open_config(folder)
    family = family_of(config.model_type)
    if family.pictures:  # DeiT has another class, with two heads
        config.architectures = [name.removesuffix("WithTeacher") for name in config.architectures or ()]
    names = labels or (SPAN if kind == "question-answering" else tuple(config.id2label.values()))
    if tuple(config.id2label.values()) != names:
        config.id2label = dict(enumerate(names))
        config.label2id = {name: index for index, name in enumerate(names)}
    if labels and config.problem_type != "single_label_classification":
        config.problem_type = None  # the new head answers with one label, whatever the old one did
    edits = read_edits(folder)
    if edits.empty:
        with sound(folder):
            model, info = model_class(kind).from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                ignore_mismatched_sizes=bool(labels),
                output_loading_info=True,
            )
        missing = set(info["missing_keys"])
    else:
        with sound(folder):
            model = model_class(kind).from_config(config, dtype=torch.float32)
        rebuild(model, edits)
        missing = _load_weights(model, load_file(folder / "model.safetensors"), new_head=bool(labels))
    lost = sorted(name for name in missing if not family.after(name))
    if lost:
        raise ModelError(f"{folder}: {len(lost)} weight(s) missing from model.safetensors, the first is {lost[0]}")
    if kind == "sentence-similarity":
        set_pooling(model, read_pooling(folder))
    return cast("PreTrainedModel", model.to(device).eval())


def load_checkpoint(
    folder: Path, task: str, *, may_lack: Callable[[str], bool] = lambda name: False, device: str = "cpu"
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """A plain Transformers model for a task (optimum's name) in float32, eval mode, from config.json and safetensors
    (one file or shards); and the weights that the folder lacks, all of which it `may_lack`.

    Raises ModelError for a pickle, other missing weights, or what Transformers has no model for. No code of the folder
    is run.
    """
    import torch
    from transformers.utils import logging

    check_folder(folder)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, info = model_class(task).from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: {str(error).splitlines()[0]}") from None
    missing = tuple(sorted(info["missing_keys"]))
    lost = [name for name in missing if not may_lack(name)]
    if lost:
        raise ModelError(f"{folder}: {len(lost)} weight(s) missing, the first is {lost[0]}")
    return cast("PreTrainedModel", model.to(device).eval()), missing


def model_class(task: str = "text-classification") -> type[Any]:
    """Transformers' Auto class for a task, by optimum's names of tasks; for embeddings one of ours."""
    if task == "sentence-similarity":
        return Embedders
    from optimum.exporters.tasks import TasksManager

    return cast("type[Any]", TasksManager.get_model_class_for_task(task))


def _load_weights(model: PreTrainedModel, weights: dict[str, torch.Tensor], *, new_head: bool) -> set[str]:
    """Load what fits; returns the names that got none. Raises ModelError for a shape that does not fit the edits."""
    own, family = model.state_dict(), family_of(model.config.model_type)
    for name in own.keys() & weights.keys():
        if own[name].shape != weights[name].shape:
            if not (new_head and family.after(name)):
                raise ModelError(f"{name} is {tuple(weights[name].shape)}, {EDITS} says {tuple(own[name].shape)}")
            del weights[name]
    return set(model.load_state_dict(weights, strict=False).missing_keys)


def is_trained(folder: Path, kind: TaskKind = "text-classification") -> bool:
    """Whether the weights hold a head, where the task takes one; without, outputs mean nothing before fine-tuning.

    Raises ModelError for weights that cannot be read.
    """
    if not ENCODER_TASKS[kind].head:
        return True
    names = [name for path in folder.glob("*.safetensors") for name in _tensor_names(path)]
    heads = [name for name in names if not name.startswith(TWO_HEADS)]
    return any("classifier" in name or "qa_outputs" in name for name in heads)


def _tensor_names(path: Path) -> list[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (OSError, SafetensorError) as error:
        hint = "was the download cut off, or is it what Git LFS leaves in a file's place?"
        raise ModelError(f"{path}: cannot be read ({error})", hint=hint) from None


def check_folder(folder: Path) -> None:
    """Raises ModelError unless the folder holds config.json, whole safetensors weights, and a tokenizer or, for a model
    of pictures, how they become pixels."""
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json", hint="give a Transformers model folder")
    if not list(folder.glob("*.safetensors")):
        pickles = [p.name for p in (*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth"))]
        if pickles:
            hint = "a pickle can run code when it is read; convert it with save_pretrained(safe_serialization=True)"
            raise ModelError(
                f"{folder} has its weights only as a pickle ({', '.join(sorted(pickles))}): refused",
                hint=hint,
            )
        raise ModelError(f"{folder} has no model.safetensors")
    for path in sorted(folder.glob("*.safetensors")):
        _tensor_names(path)  # reads its header, and whether the file is as long as that says
    if reads_pictures(folder):
        if not (folder / PREPROCESSOR).is_file():
            raise ModelError(f"{folder} has no {PREPROCESSOR}", hint="save the image processor beside the weights")
        return
    if not has_tokenizer(folder):
        raise ModelError(f"{folder} has no tokenizer", hint="tokenizer.json is needed beside the weights")


def save_model(model: PreTrainedModel, out: Path, *, tokenizer_from: Path, edits: Edits | None = None) -> None:
    """Write config.json, model.safetensors (float32), the tokenizer, edits.json where it is not empty, and how an
    embedder pools."""
    plain = edits is None or edits.empty  # else only `load_classifier` opens it, by the names that modules have
    model.to("cpu").save_pretrained(out, safe_serialization=True, save_original_format=plain)
    if pooling := pooling_of(model):
        write_modules(out, pooling, hidden_width(model))
    if edits is not None and not edits.empty:
        text = json.dumps(edits.model_dump(mode="json"), indent=2, sort_keys=True)
        (out / EDITS).write_text(text + "\n", encoding="utf-8")
    copy_tokenizer(tokenizer_from, out)


def copy_tokenizer(source: Path, out: Path) -> None:
    """Copy the tokenizer, `tokenizer.json` made of a slow one's files, or the settings of pictures."""
    pictures = reads_pictures(source)
    files = {PREPROCESSOR: (source / PREPROCESSOR).read_bytes()} if pictures else tokenizer_files(source)
    for name, content in files.items():
        if not (out / name).exists():
            (out / name).write_bytes(content)
