"""Writing a BERT-family classifier or sentence embedder as GGUF, so that llama.cpp computes the same logits.

llama.cpp's "bert" graph has one head size and one FFN size for all layers, LayerNorm, GELU (the tanh approximation,
from a half-precision table), token type 0 everywhere, and, for pooling type RANK, the head `cls` (dense, tanh) and
`cls.output` (dense) on the first token. BERT's pooler and classifier are exactly that, and so is RoBERTa's head.
For MEAN it averages the last states of a text's tokens, for CLS it takes the first one's; neither has length 1 yet,
which llama.cpp's own programs and our worker bring them to. ModernBERT has a graph of its own (`gguf_modernbert`).
Source: llama.cpp, `src/models/bert.cpp` and `build_pooling` in `src/llama-graph.cpp`.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgekit.artifact import Frozen, Task, TaskKind
from edgekit.errors import MissingExtraError, Problem, StageError
from edgekit.formats.gguf_check import read_spec, tokenizer_problems
from edgekit.formats.gguf_modernbert import (
    MODERN,
    describe_layers,
    describe_pooling,
    modern_name,
    modern_plan,
    modern_problems,
)
from edgekit.formats.gguf_tokenizer import read_vocabulary, write_vocabulary
from edgekit.formats.gguf_weights import Source, Weights, open_weights, tensor_plan
from edgekit.model_config import ModelConfig, number, pad_id, read_config
from edgekit.nn.families import Family, family_of
from edgekit.nn.load import Edits, read_edits
from edgekit.sentence_modules import read_pooling

if TYPE_CHECKING:
    from gguf import GGUFWriter

__all__ = ["GgufFacts", "obstacles", "obstacles_of", "tokenizer_obstacles", "write_gguf"]

EMBEDDER: TaskKind = "sentence-similarity"
HEADS = {  # by model_type: the dense layer before the tanh, and the one after it
    "bert": ("bert.pooler.dense", "classifier"),
    "roberta": ("classifier.dense", "classifier.out_proj"),
    "xlm-roberta": ("classifier.dense", "classifier.out_proj"),
    "camembert": ("classifier.dense", "classifier.out_proj"),
}
WRONG_HEADS = {"distilbert": "ReLU", "electra": "GELU"}
CLASSIFIERS = {*HEADS, "modernbert"}
EMBEDDERS = {*CLASSIFIERS, "distilbert"}  # by model_type: no head, so no head in the way
UNWRITTEN = {"electra"}  # llama.cpp computes its encoder
GELU = {"gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python"}
TO_ONNX = "export to ONNX instead, or distill into a BERT or MiniLM student"


class GgufFacts(Frozen):
    """What a GGUF file holds: tensors by type, its size, what was merged back, and what is worth knowing."""

    file_type: str
    tensors: dict[str, int]
    bytes: int
    merged: tuple[str, ...] = ()  # low-rank layers, multiplied out
    merged_parameters: int = 0  # how many more parameters that costs
    notes: tuple[str, ...] = ()


def obstacles(folder: Path, task: Task) -> list[Problem]:
    """Why this model folder cannot become a GGUF classifier or embedder; [] where it can. Reads JSON files only.

    Raises ModelError where config.json, edits.json or tokenizer.json is missing or damaged.
    """
    return [*obstacles_of(read_config(folder), read_edits(folder), task), *tokenizer_obstacles(folder, task)]


def tokenizer_obstacles(folder: Path, task: Task) -> list[Problem]:
    """Why llama.cpp would not tokenize as the folder's tokenizer does; of pictures, which have none, []. Raises
    ModelError as `read_spec` does."""
    return [] if task.kind == "image-classification" else tokenizer_problems(read_spec(folder))


def obstacles_of(config: ModelConfig, edits: Edits, task: Task) -> list[Problem]:
    """The same for values alone (a planner's prediction of config.json and edits.json); the tokenizer is not looked at.

    Low-rank layers are no obstacle: they are multiplied out again.
    """
    if task.kind == "image-classification":
        what = "llama.cpp runs vision transformers in its multimodal projectors alone, not as classifiers"
        return [Problem("task", what, "export to ONNX instead")]
    if task.kind not in ("text-classification", EMBEDDER):
        return [Problem("task", f"llama.cpp has no {task.kind} for encoders: its heads answer once a text", TO_ONNX)]
    kind = str(config.get("model_type"))
    if kind not in (EMBEDDERS if task.kind == EMBEDDER else CLASSIFIERS):
        return [Problem("config.json", _unwritten(kind, task), TO_ONNX)]
    found = [*_shape_problems(config, edits, family_of(kind)), *_graph_problems(config, task)]
    if task.segments:
        what = "llama.cpp takes every token for text A, and this model was trained to tell the two texts apart"
        found.append(Problem("task.segments", what, "fine-tune with segments=false, or export to ONNX"))
    positions = _positions(config)
    if task.max_length > positions:
        what = f"texts of {task.max_length} tokens, but the model has {positions} positions"
        found.append(Problem("task.max_length", what, f"use at most {positions}"))
    return found


def _unwritten(kind: str, task: Task) -> str:
    """Why models of this model_type become no GGUF file."""
    if task.kind != EMBEDDER and kind in WRONG_HEADS:
        return f"llama.cpp has no {kind} classifier: this head uses {WRONG_HEADS[kind]}, where llama.cpp computes tanh"
    return f"edgekit does not write {kind} as GGUF" if kind in UNWRITTEN else f"llama.cpp has no {kind} encoder"


def _shape_problems(config: ModelConfig, edits: Edits, family: Family) -> list[Problem]:
    """Shapes that differ between layers, or heads that no longer fill the width."""
    layers, heads = number(config, family.config_layers), number(config, family.config_heads)
    ffn = number(config, family.config_ffn)
    found = []
    pruned = sorted(layer for layer, left in edits.heads.items() if left != heads)
    if pruned:
        what = (
            f"layers {_list(pruned)} have fewer than {heads} heads, and llama.cpp's heads always fill the hidden width"
        )
        found.append(Problem("edits.json: heads", what, "prune FFN neurons, layers or vocabulary, or export to ONNX"))
    sizes = sorted({edits.ffn.get(layer, ffn) for layer in range(layers)})
    if len(sizes) > 1:
        what = f"FFN sizes differ between layers ({_list(sizes)}), and llama.cpp has one for all"
        found.append(Problem("edits.json: ffn", what, "prune the FFN uniformly, or export to ONNX"))
    return found


def _graph_problems(config: ModelConfig, task: Task) -> list[Problem]:
    if config.get("model_type") == "modernbert":
        return modern_problems(config, task.kind != EMBEDDER)
    found = []
    key = "activation" if config.get("model_type") == "distilbert" else "hidden_act"
    act = config.get(key, "gelu")
    if act not in GELU:
        found.append(Problem(f"config.json: {key}", f"{act}, and llama.cpp's BERT computes gelu", TO_ONNX))
    positions = config.get("position_embedding_type", "absolute")
    if positions not in ("absolute", None):
        what = f"{positions}, and llama.cpp's BERT has absolute positions"
        found.append(Problem("config.json: position_embedding_type", what, TO_ONNX))
    return found


def _list(numbers: list[int]) -> str:
    return ", ".join(str(n) for n in numbers)


def _first_position(config: ModelConfig) -> int:
    """RoBERTa counts positions from its padding id + 1 (transformers, `create_position_ids_from_input_ids`)."""
    return pad_id(config) + 1 if family_of(str(config["model_type"])).position_offset else 0


def _positions(config: ModelConfig) -> int:
    """How many positions a text may have."""
    return number(config, "max_position_embeddings") - _first_position(config)


def write_gguf(folder: Path, task: Task, out_file: Path, file_type: Literal["f32", "f16"]) -> GgufFacts:
    """Write the classifier or embedder in `folder` as one GGUF file; f16 keeps vectors (norms, biases) in f32.

    Only the first `task.max_length` position embeddings are kept: the file serves its task.
    Raises StageError where the folder has obstacles or a weight does not fit f16, ModelError where a weight is missing,
    MissingExtraError where gguf is not installed.
    """
    try:
        import gguf
    except ModuleNotFoundError:
        raise MissingExtraError("gguf", "gguf") from None
    problems = obstacles(folder, task)
    if problems:
        raise StageError("this model cannot be written as GGUF", problems=tuple(problems))
    config, edits = read_config(folder), read_edits(folder)
    kind = str(config["model_type"])
    family, first = family_of(kind), _first_position(config)
    layers = number(config, family.config_layers)
    modern, embeds = kind == "modernbert", task.kind == EMBEDDER
    if modern:
        plan = modern_plan(family, layers, not embeds)
    else:
        plan = tensor_plan(family, layers, None if embeds else HEADS[kind], (first, first + task.max_length))
    spec = read_spec(folder)
    vocabulary = read_vocabulary(spec, number(config, "vocab_size"), pad_id(config))
    writer = gguf.GGUFWriter(out_file, MODERN if modern else "bert")
    ffn = edits.ffn.get(0, number(config, family.config_ffn))
    writer.add_name(_name(modern_name(spec) if modern else kind, layers, task))
    _describe(writer, config, task, {"layers": layers, "ffn": ffn}, file_type)
    notes = _describe_outputs(writer, folder, config, task)
    write_vocabulary(writer, vocabulary)
    with closing(writer), open_weights(folder, family, task.kind) as weights:
        counts = _write_tensors(writer, plan, weights, file_type)
    if weights.merged:
        cost = weights.merged_parameters
        notes.append(f"{len(weights.merged)} low-rank layers multiplied out again: {cost:,} more parameters")
    cut = _positions(config) - task.max_length
    if cut and family.position_embeddings:
        notes.append(f"{cut} position embeddings beyond the task's {task.max_length} tokens left out")
    return GgufFacts(
        file_type=file_type,
        tensors=counts,
        bytes=out_file.stat().st_size,
        merged=weights.merged,
        merged_parameters=weights.merged_parameters,
        notes=(*notes, *vocabulary.notes),
    )


def _name(kind: str, layers: int, task: Task) -> str:
    """The file's `general.name`."""
    if task.kind == EMBEDDER:
        return f"{kind} sentence embedder, {layers} layers"
    return f"{kind} text classifier, {layers} layers, {len(task.labels)} labels"


def _describe(writer: GGUFWriter, config: ModelConfig, task: Task, shape: dict[str, int], file_type: str) -> None:
    """The metadata under `general.*` and the architecture's own."""
    import gguf

    family = family_of(str(config["model_type"]))
    modern = config["model_type"] == "modernbert"
    key, default = ("norm_eps", 1e-5) if modern else ("layer_norm_eps", 1e-12)
    eps = config.get(key, default)
    writer.add_file_type({"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16}[file_type])
    writer.add_vocab_size(number(config, "vocab_size"))
    writer.add_context_length(task.max_length)
    writer.add_embedding_length(number(config, family.config_hidden))
    writer.add_block_count(shape["layers"])
    writer.add_head_count(number(config, family.config_heads))
    writer.add_feed_forward_length(shape["ffn"])
    writer.add_layer_norm_eps(eps if isinstance(eps, float) else default)
    writer.add_causal_attention(False)
    if modern:
        describe_layers(writer, config, shape["layers"])
    else:
        writer.add_token_type_count(1)  # llama.cpp asks for it of DistilBERT too, which has no such table


def _describe_outputs(writer: GGUFWriter, folder: Path, config: ModelConfig, task: Task) -> list[str]:
    """The metadata that say what llama.cpp makes of the last states; what is worth knowing of it."""
    import gguf

    if task.kind == EMBEDDER:
        pooling = {"mean": gguf.PoolingType.MEAN, "cls": gguf.PoolingType.CLS}[read_pooling(folder)]
        writer.add_pooling_type(pooling)
        return []
    writer.add_pooling_type(gguf.PoolingType.RANK)
    writer.add_classifier_output_labels(list(task.labels))
    writer.add_bool("edgekit.pair", task.pair)  # read by the example program
    return describe_pooling(writer, config) if config["model_type"] == "modernbert" else []


def _write_tensors(writer: GGUFWriter, plan: dict[str, Source], weights: Weights, file_type: str) -> dict[str, int]:
    """Write all tensors, one in memory at a time; how many there are of each type."""
    dtypes: dict[str, type[np.float32] | type[np.float16]] = {}
    for name, source in plan.items():
        shape = weights.shape(source)
        half = file_type == "f16" and len(shape) == 2 and name != "token_types.weight"  # that row is added as it is
        dtypes[name] = np.float16 if half else np.float32
        writer.add_tensor_info(name, shape, np.dtype(dtypes[name]), prod(shape) * np.dtype(dtypes[name]).itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, source in plan.items():
        with np.errstate(over="ignore"):
            data = weights.get(source).astype(dtypes[name])
        if not np.isfinite(data).all():
            raise StageError(f"{name} has values that {file_type} cannot hold", hint="write f32, or check the training")
        writer.write_tensor_data(data)
    return dict(Counter("F16" if dtype is np.float16 else "F32" for dtype in dtypes.values()))
