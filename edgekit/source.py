"""Where a model comes from: a local folder, a hub id, or a folder inside an installed package (`pkg:NAME/path`)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from edgekit.artifact import MANIFEST, Artifact, Task, TaskKind
from edgekit.errors import ModelError
from edgekit.model_config import label_names, positions, read_config
from edgekit.nn.architecture import picture_length
from edgekit.nn.head import classifies
from edgekit.sentence_modules import MODULES
from edgekit.tokenizer_files import SENTENCEPIECE

__all__ = ["open_model", "resolve_model"]

HEADS: dict[str, TaskKind] = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForSentenceSimilarity": "sentence-similarity",
    "ForImageClassification": "image-classification",
}
HUB_FILES = ["*.json", "*.safetensors", "*.txt", *SENTENCEPIECE, "*.spm", "1_Pooling/config.json"]


def resolve_model(name: str) -> Path:
    """The local folder of a model. Downloads from the hub where `name` is an id (no pickles, no code).

    Raises ModelError where there is no such folder, package or hub model.
    """
    if name.startswith("pkg:"):
        return _inside_package(name.removeprefix("pkg:"))
    path = Path(name).expanduser()
    if path.is_dir():
        return path.resolve()
    if path.exists():
        raise ModelError(f"{name} is a file", hint="give the model's folder")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"no such folder: {name}")
    return _from_hub(name)


def open_model(name: str) -> Artifact:
    """The model as an artifact: a sealed folder as it is, any other Transformers folder described by its files."""
    folder = resolve_model(name)
    if (folder / MANIFEST).is_file():
        return Artifact.open(folder)
    from edgekit.nn.load import check_folder

    check_folder(folder)
    return Artifact.outside(folder, _task_of(folder))


def _inside_package(name: str) -> Path:
    package, _, inner = name.partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        hint = f"pip install {package.replace('_', '-')}"
        raise ModelError(f"pkg:{name}: the package {package!r} is not installed", hint=hint)
    root = Path(spec.submodule_search_locations[0]).resolve()
    folder = (root / inner).resolve()
    if not folder.is_relative_to(root) or not folder.is_dir():
        raise ModelError(f"pkg:{name}: the package has no folder {inner!r}")
    return folder


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=HUB_FILES))
    except HFValidationError:
        raise ModelError(f"{name!r} is neither a folder nor a hub id (OWNER/NAME)") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = "no such folder here; as a hub id it could not be fetched either"
        raise ModelError(f"{name}: {reason}", hint=hint) from None


def _has_head(folder: Path, kind: TaskKind) -> bool:
    from edgekit.nn.load import is_trained

    return is_trained(folder, kind)


def _task_of(folder: Path) -> Task | None:
    """The task of a folder that already is a classifier, an embedder or a language model; None for a bare encoder, or
    for one with two heads (DeiT's with a teacher).

    The longest input defaults to 128 tokens, a question answerer's window to 384, a language model's and a
    text-to-text model's input to 512, or less where there are fewer positions.
    """
    config = read_config(folder)
    names = label_names(config)
    architectures = str(config.get("architectures"))
    if "ForCausalLM" in architectures or "LMHeadModel" in architectures:
        return Task(kind="language-modeling", max_length=min(512, positions(config) or 512))
    if config.get("is_encoder_decoder") and ("ForConditionalGeneration" in architectures or "MTModel" in architectures):
        return Task(kind="text-to-text", max_length=min(512, positions(config) or 512))
    heads = architectures.replace("ForImageClassificationWithTeacher", "")
    kind = next((kind for name, kind in HEADS.items() if name in heads), None)
    longest = min(128, positions(config) or 128)
    if kind is not None and classifies(kind) and not names and _has_head(folder, kind):
        names = ("LABEL_0", "LABEL_1")  # Transformers leaves its default out
    if kind == "sentence-similarity" or (kind is None and (folder / MODULES).is_file()):
        return Task(kind="sentence-similarity", max_length=longest)
    if kind is None or not names:
        return None
    if kind == "image-classification":
        return Task(kind=kind, labels=names, max_length=picture_length(folder))
    if kind == "question-answering":
        segments = config.get("type_vocab_size", 1) == 2  # where there are two, its training told the texts apart
        return Task(
            kind=kind, labels=names, max_length=min(384, positions(config) or 384), pair=True, segments=segments
        )
    return Task(kind=kind, labels=names, max_length=longest)
