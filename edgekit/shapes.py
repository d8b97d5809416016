"""What a plan expects of each step before it runs: the model's shape, and the bytes, memory and time it takes.

Shapes are a config.json and its edits as values; sizes follow from them exactly, except after a low-rank step (each
matrix is taken to keep its part of the budget; by energy, or where the step may be dropped, all of it) and for a
vocabulary, which is chosen by a sample of the data. Time is operations over this machine's measured rate.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from edgekit.artifact import Artifact, Task, library_versions
from edgekit.data.table import SplitName, Table
from edgekit.errors import ModelError, Problem, StageError
from edgekit.model_config import ModelConfig, number, read_config
from edgekit.nn.architecture import check_architecture
from edgekit.nn.families import Family, family_of
from edgekit.nn.fold import unfoldable
from edgekit.nn.load import Edits, read_edits
from edgekit.nn.qat import int4_block
from edgekit.nn.structure import SHARED
from edgekit.pictures import picture_shape, picture_tokens
from edgekit.shapes_texts import tokens_learned, tokens_of
from edgekit.shapes_vocabulary import tokens_kept, tokens_recased
from edgekit.stages.base import Config
from edgekit.stages.factorize import Factorize
from edgekit.stages.prune import Prune
from edgekit.stages.trim import Trim, length_problem
from edgekit.tasks.encoders import task_kind

__all__ = ["Cost", "Shape", "Tables", "cost_of", "next_shape", "shape_of"]

TRAINING_BYTES = 16  # weights, gradients and AdamW's two moments, float32
PROCESS_BYTES = 600_000_000  # Python with torch and Transformers loaded
EXPORT_SECONDS = 12.0
FOLDED_TABLES = 8  # as large as the token table: sums, fits and what goes with them
WIDTH = {"q8_0": 1.07, "q6_k": 0.83, "q5_1": 0.76, "q5_0": 0.7, "q4_1": 0.64, "q4_0": 0.57, "q4_k_m": 0.63}
WIDTH |= {"int8-dynamic": 1.02, "int8-static": 1.02, "int8-weight-only": 1.13, "int4-weight-only": 0.63}
WIDTH |= {"int8-nncf": 1.05}
TABLE = {"keep": 1.0, "int8": 0.26, "int4": 0.14}  # bytes of an embedding, scales included, of those in f32
Tables = Mapping[SplitName, Table]


@dataclass(frozen=True)
class Shape:
    """A model as far as it can be known before it exists."""

    format: str
    config: dict[str, JsonValue]
    edits: Edits
    bytes: int
    ranks: Mapping[str, float] = field(default_factory=dict)  # by part: share of its weights that low rank leaves
    recased: bool = False  # an uncased tokenizer was given letter case


@dataclass(frozen=True)
class Cost:
    """Predicted bytes of the artifact, peak memory (bytes) and time (seconds) of the step."""

    bytes: int
    memory: int
    seconds: float
    parameters: int = 0
    notes: tuple[str, ...] = field(default=())


def shape_of(model: Artifact, task: Task) -> Shape:
    """The shape of the recipe's model. Raises ModelError for an architecture that is not supported."""
    config = read_config(model.path)
    if model.format == "hf":
        check_architecture(model.path)
    shape = Shape(model.format, config, read_edits(model.path), model.size_bytes)
    return shape if model.format != "hf" else replace(shape, bytes=4 * parameters(shape, task))


def next_shape(
    shape: Shape, stage: str, config: Config, task: Task, model: Path, tables: Tables
) -> tuple[Shape, list[Problem]]:
    """The shape after a step, and why the step cannot work. `model`: the folder whose tokenizer it has."""
    problems = [*_picture_problems(shape, stage, config), *_table_problems(shape, config)]
    if stage == "prune":
        assert isinstance(config, Prune)
        problems += _layer_problems(shape, config)
        shape = _pruned(shape, config)
        if config.vocabulary and (kept := tokens_kept(model, config, tables, recased=shape.recased)):
            shape = replace(shape, config={**shape.config, "vocab_size": kept})
    elif stage == "trim":
        problems += [*_shared_problems(shape, stage), *_length_problems(config, task)]
        shape = _trimmed(shape, config)
    elif stage == "recase":
        shape, obstacles = _recased(shape, model)
        problems += obstacles
    elif stage == "student":
        shape = _student(shape, config)
    elif stage == "factorize":
        assert isinstance(config, Factorize)
        if config.method == "curvature" or config.compared:
            problems += _shared_problems(shape, stage)
        left: dict[str, float] = {part: shape.ranks.get(part, 1.0) * _budget(config) for part in config.modules}
        shape = replace(shape, ranks={**shape.ranks, **left})
    elif stage == "export":
        return _exported(shape, config, task, model)
    elif stage == "quantize":
        return replace(shape, bytes=_narrowed(shape, config)), problems
    return replace(shape, bytes=4 * parameters(shape, task)), problems


def cost_of(
    before: Shape,
    after: Shape,
    stage: str,
    config: Config,
    task: Task,
    tables: Tables,
    teachers: Sequence[Shape] = (),
) -> Cost:
    """What a step should need. Training counts 6 operations per parameter and token, everything else 2."""
    weights = before.bytes // 4
    tokens = tokens_learned(tables, stage, config, task)
    if stage in ("finetune", "distill", "mlm-pretrain"):
        passes = 6 * int(getattr(config, "epochs", 1)) * _computed(before) + 2 * sum(map(_computed, teachers))
        seconds = passes * tokens / _operations_per_second()
        return Cost(after.bytes, PROCESS_BYTES + weights * TRAINING_BYTES, seconds + 3, after.bytes // 4)
    if stage in ("prune", "trim", "factorize"):
        rows = min(1.0, int(getattr(config, "samples", 256)) / max(1, len(tables.get("train", Table(())))))
        seconds, memory = 6 * weights * tokens * rows / _operations_per_second(), PROCESS_BYTES + weights * 12
        if getattr(config, "fold_layers", 0):
            seconds += _folding_seconds(before, config, task, tables)
            memory += FOLDED_TABLES * 4 * _embedding_parameters(before)
        return Cost(after.bytes, memory, seconds + 3, after.bytes // 4)
    if stage == "export":
        return Cost(after.bytes, PROCESS_BYTES + before.bytes * 3, EXPORT_SECONDS, weights)
    return Cost(after.bytes, PROCESS_BYTES // 2 + before.bytes * 3, 3, after.bytes // 4)


def _computed(shape: Shape) -> float:
    """Parameters that each token is multiplied by: those of layers, as often as they are computed."""
    own = shape.bytes // 4 - _embedding_parameters(shape)
    return own * _sizes(shape)[1] / _own_layers(shape.config)


def _folding_seconds(shape: Shape, config: Config, task: Task, tables: Tables) -> float:
    """The folded layers alone, over texts and over each token of the vocabulary between two special ones."""
    names: tuple[SplitName, ...] = ("train", "unlabeled")
    rows = sum(len(tables[name]) for name in names if name in tables)
    read = min(1.0, int(getattr(config, "fold_texts", 0)) / max(1, rows)) * tokens_of(tables, names, task)
    layer = _computed(shape) / _sizes(shape)[1]
    alone = 3 * int(str(shape.config.get("vocab_size") or 0))
    return 2 * layer * int(getattr(config, "fold_layers", 0)) * (read + alone) / _operations_per_second()


def parameters(shape: Shape, task: Task) -> int:
    """Parameters of the classifier: embeddings, layers (with edits), head."""
    hidden, _, heads, ffn = _sizes(shape)
    size = hidden // heads
    gated = _family(shape.config).gated
    positions, projections = _relative_positions(shape.config)
    total = _embedding_parameters(shape) + 2 * hidden + positions
    dense = 0.0
    for layer in range(_own_layers(shape.config)):
        width = shape.edits.heads.get(layer, heads) * size
        neurons = shape.edits.ffn.get(layer, ffn)
        dense += (4 + projections) * hidden * width * shape.ranks.get("attention", 1.0)
        dense += (3 if gated else 2) * hidden * neurons * shape.ranks.get("ffn", 1.0)
        projected = (3 + projections) * width if shape.config.get("qkv_bias", True) else 0
        total += 2 * hidden if gated else 4 * hidden + projected + hidden + neurons + hidden
    labels = max(len(task.labels), 2)
    pooler = hidden * hidden + hidden if task.kind == "text-classification" else 0
    head = labels * (hidden + 1) if task_kind(task).head else 0
    return int(total + dense + pooler + head)


def _sizes(shape: Shape) -> tuple[int, int, int, int]:
    family = _family(shape.config)
    names = (family.config_hidden, family.config_layers, family.config_heads, family.config_ffn)
    hidden, layers, heads, ffn = (number(shape.config, name) for name in names)
    return hidden, layers, heads, ffn


def _family(config: ModelConfig) -> Family:
    return family_of(str(config["model_type"]))


def _own_layers(config: ModelConfig) -> int:
    """Layers with weights of their own."""
    family = _family(config)
    if family.group_layers:
        return _count(config, "num_hidden_groups") * _count(config, "inner_group_num")
    return number(config, family.config_layers)


def _count(config: ModelConfig, key: str) -> int:
    return number(config, key) if config.get(key) is not None else 1


def _embedding_parameters(shape: Shape) -> int:
    hidden, config, family = _sizes(shape)[0], shape.config, _family(shape.config)
    if family.pictures:
        return hidden * _picture_rows(config, family)
    width = _table_width(shape)
    tables = ["vocab_size"]
    if family.position_embeddings and config.get("position_biased_input", True):
        tables.append("max_position_embeddings")
    if family.type_embeddings:
        tables.append("type_vocab_size")
    rows = [int(str(config.get(k) or 0)) for k in tables]
    words = int(rows[0] * width * shape.ranks.get("embedding", 1.0))
    return words + sum(rows[1:]) * width + (width * hidden if width != hidden else 0)


def _table_width(shape: Shape) -> int:
    return int(str(shape.config.get("embedding_size") or _sizes(shape)[0]))


def _picture_rows(config: ModelConfig, family: Family) -> int:
    """Values of a patch and their bias, learned tokens and positions: each has a row as wide as the model."""
    channels, height, width = picture_shape(config)
    tokens = picture_tokens(config, family.learned_tokens)
    pixels = channels * height * width // (tokens - family.learned_tokens)
    return pixels + 1 + family.learned_tokens + tokens


def _picture_problems(shape: Shape, stage: str, config: Config) -> list[Problem]:
    """What is of texts alone."""
    if not _family(shape.config).pictures:
        return []
    kind, problems = str(shape.config["model_type"]), list[Problem]()
    if stage == "prune" and getattr(config, "vocabulary", False):
        problems.append(Problem("vocabulary", f"{kind} reads pictures: it has no vocabulary", "leave it off"))
    if stage == "factorize" and "embedding" in getattr(config, "modules", ()):
        problems.append(Problem("modules", f"{kind} has no table of tokens to factorize", "use attention or ffn"))
    if stage == "distill" and int(getattr(config, "altered_copies", 0)) > 0:
        problems.append(
            Problem("altered_copies", f"texts can be altered so, and {kind} reads pictures", "leave it at 0")
        )
    if stage == "recase":
        problems.append(Problem("stage", f"{kind} reads pictures: it has no letters", "leave it out"))
    if stage == "mlm-pretrain":
        problems.append(Problem("stage", f"it learns from masked words, and {kind} reads pictures", "leave it out"))
    if stage == "trim" and int(getattr(config, "length", 0)) > 0:
        problems.append(Problem("length", "every picture has the same number of tokens", "leave it at 0"))
    return problems


def _table_problems(shape: Shape, config: Config) -> list[Problem]:
    """Rows of an int4 table that are no whole blocks. How wide a thin table is, is not known yet."""
    chosen = [name for name in ("embeddings", "qat_embeddings") if getattr(config, name, "keep") == "int4"]
    if not chosen or getattr(config, "qat", "int8") == "off" or "embedding" in shape.ranks:
        return []
    if shape.format == "gguf" or _family(shape.config).pictures:
        return []
    try:
        int4_block(_table_width(shape))
    except StageError as error:
        return [Problem(chosen[0], error.what, error.hint)]
    return []


def _relative_positions(config: ModelConfig) -> tuple[int, int]:
    """Parameters of the table that all layers read, and how many projections of it each layer has beside its own four.

    Source: transformers, `DebertaV2Encoder`, `DisentangledSelfAttention` and `MPNetEncoder`.
    """
    family = _family(config)
    if family.head_bias:
        return _count(config, "relative_attention_num_buckets") * number(config, family.config_heads), 0
    if not config.get("relative_attention"):
        return 0, 0
    spans = [config.get(k) for k in ("position_buckets", "max_relative_positions", "max_position_embeddings")]
    span = next(n for n in spans if isinstance(n, int) and n > 0)
    kinds = config.get("pos_att_type") or ()
    own = sum(kind in kinds for kind in ("c2p", "p2c")) if isinstance(kinds, str | list) else 0
    return 2 * span * number(config, family.config_hidden), 0 if config.get("share_att_key") else own


def _layer_problems(shape: Shape, config: Config) -> list[Problem]:
    """More layers than there are, and what layers that share their weights rule out."""
    family, keep = _family(shape.config), int(getattr(config, "keep_layers", 0))
    folded = int(getattr(config, "fold_layers", 0))
    layers = _sizes(shape)[1] - folded
    if folded and (why := _unfoldable(shape)):
        return [why]
    if layers < 1:
        what = f"fold_layers is {folded}, and the model has {layers + folded} layers"
        return [Problem("fold_layers", what, "one has to stay")]
    if keep > layers:
        left = f", and {folded} of them are folded" if folded else ""
        what = f"keep_layers is {keep}, but the model has only {layers + folded} layers{left}"
        return [Problem("keep_layers", what)]
    if not family.group_layers or not keep:
        return []
    problems = []
    if getattr(config, "layer_choice", "spread") == "importance":
        what = "layer_choice is importance, but the layers share their weights: none matters more than another"
        problems.append(Problem("layer_choice", what, "use spread: keep_layers is how often they are computed"))
    groups = _count(shape.config, "num_hidden_groups")
    if keep < groups:
        what = f"keep_layers is {keep}, but there are {groups} groups of shared layers, each computed at least once"
        problems.append(Problem("keep_layers", what, f"keep at least {groups}"))
    return problems


def _shared_problems(shape: Shape, stage: str) -> list[Problem]:
    """Where one set of weights is several layers, no layer has a size of its own, nor a repair of its own."""
    if _own_layers(shape.config) == _sizes(shape)[1]:
        return []
    hint = (
        "use prune, which cuts all of them alike" if stage == "trim" else "use method whitened, and versus none or auto"
    )
    return [Problem("", SHARED, hint)]


def _length_problems(config: Config, task: Task) -> list[Problem]:
    """Texts on which nothing can be timed, because the task cuts them."""
    assert isinstance(config, Trim)
    found = length_problem(config, task) if config.budget == "latency" and not config.costs else None
    return [found] if found else []


def _unfoldable(shape: Shape) -> Problem | None:
    """Why no layer can become part of the token table; None where it can."""
    if why := unfoldable(shape.config):
        return Problem("fold_layers", why, "leave it at 0")
    if "embedding" in shape.ranks:
        return Problem("fold_layers", "the token table is two thin matrices", "put factorize after prune")
    return None


def _pruned(shape: Shape, config: Config) -> Shape:
    family = _family(shape.config)
    _, layers, heads, ffn = _sizes(shape)
    kept = int(getattr(config, "keep_layers", 0)) or max(1, layers - int(getattr(config, "fold_layers", 0)))
    own = _own_layers(shape.config) if family.group_layers else kept
    less_heads = round(heads * (1 - float(getattr(config, "heads", 0.0))))
    less_ffn = round(ffn * (1 - float(getattr(config, "ffn", 0.0))))
    uneven = getattr(config, "scope", "uniform") == "global"
    content = {**shape.config, family.config_layers: kept}
    update: dict[str, JsonValue] = {}
    if less_heads < heads:
        update["heads"] = {str(layer): less_heads for layer in range(own)}
    if less_ffn < ffn and uneven:
        # one budget over all layers: which gets how much is not known yet, but they will differ
        update["ffn"] = {str(layer): less_ffn + layer for layer in range(own)}
    elif less_ffn < ffn:
        content[family.config_ffn] = less_ffn
    edits = Edits.model_validate({**shape.edits.model_dump(), **update}) if update else shape.edits
    return replace(shape, config=content, edits=edits)


def _trimmed(shape: Shape, config: Config) -> Shape:
    """As if the share held for heads and neurons alike; every layer will differ, by how much is not known yet."""
    _, layers, heads, ffn = _sizes(shape)
    share = float(getattr(config, "share", 1.0))
    update = {
        "heads": {layer: max(1, round(heads * share)) for layer in range(layers)},
        "ffn": {layer: max(1, round(ffn * share)) + layer for layer in range(layers)},
    }
    return replace(shape, edits=shape.edits.model_copy(update=update))


def _recased(shape: Shape, model: Path) -> tuple[Shape, list[Problem]]:
    if _family(shape.config).pictures:
        return shape, []  # refused already
    if "embedding" in shape.ranks:
        return shape, [Problem("", "the token table is two thin matrices", "put recase before factorize")]
    if shape.recased:
        return shape, [Problem("", "this tokenizer tells letter case already", "leave the second recase out")]
    more, problems = tokens_recased(model)
    config = {**shape.config, "vocab_size": round(more * number(shape.config, "vocab_size"))}
    return replace(shape, config=config, recased=True), problems


def _student(shape: Shape, config: Config) -> Shape:
    family = _family(shape.config)
    names = {"layers": family.config_layers, "heads": family.config_heads, "ffn": family.config_ffn}
    update: dict[str, JsonValue] = {
        key: int(getattr(config, name)) for name, key in names.items() if getattr(config, name, 0)
    }
    if hidden := int(getattr(config, "hidden", 0)):
        update |= dict.fromkeys(family.widths(shape.config), hidden)
    return replace(shape, config={**shape.config, **update}, edits=Edits(), ranks={})


def _budget(config: Config) -> float:
    """Share of the weights that surely goes on."""
    may_drop = getattr(config, "versus", "none") != "none" and "embedding" not in getattr(config, "modules", ())
    known = getattr(config, "rank_by", "energy") == "budget" and not may_drop
    return float(getattr(config, "budget", 1.0)) if known else 1.0


def _exported(shape: Shape, config: Config, task: Task, model: Path) -> tuple[Shape, list[Problem]]:
    file_format = str(getattr(config, "format", "onnx"))
    width = 2 if getattr(config, "precision", "f32") == "f16" else 4
    problems: list[Problem] = []
    if file_format == "gguf":
        from edgekit.formats.gguf_encoder import obstacles_of, tokenizer_obstacles

        problems = obstacles_of(shape.config, shape.edits, task)
        with suppress(ModelError):  # a tokenizer that cannot be read is no matter of the format
            problems += tokenizer_obstacles(model, task)  # steps keep its rules, whatever they do to its vocabulary
        if shape.recased:
            what = "llama.cpp's WordPiece makes all letters small, and this tokenizer marks capital ones"
            problems.append(Problem("recase", what, "leave recase out, or export to ONNX"))
        shape = replace(shape, ranks={})  # it holds whole matrices: thin ones are multiplied out
        shape = replace(shape, bytes=4 * parameters(shape, task))
    if file_format == "openvino" and library_versions(("openvino",))["openvino"] == "absent":
        problems.append(Problem("", "openvino is not installed (pip install 'edgekit[openvino]')"))
    return replace(shape, format=file_format, bytes=shape.bytes * width // 4), problems


def _narrowed(shape: Shape, config: Config) -> int:
    """Bytes of a quantized file: of f16 in GGUF; of f32 in ONNX and OpenVINO, where embeddings have their own type."""
    method = str(getattr(config, "method", ""))
    width = WIDTH.get(method, 1.0) / (4 if method.startswith("int") else 2)
    if shape.format == "gguf" or _family(shape.config).pictures:
        return int(shape.bytes * width)
    embeddings = min(4 * _embedding_parameters(shape), shape.bytes)
    return int((shape.bytes - embeddings) * width + embeddings * TABLE[str(getattr(config, "embeddings", "int8"))])


@cache
def _operations_per_second() -> float:
    """Float32 operations per second that training reaches here: a third of a plain matrix product's rate."""
    left = np.ones((512, 512), dtype=np.float32)
    best = 1e9
    for _ in range(5):
        start = time.perf_counter()
        left @ left
        best = min(best, time.perf_counter() - start)
    return 2 * 512**3 / best / 3
