"""Which weight of a Transformers classifier or encoder becomes which GGUF tensor, and reading them one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from edgekit.artifact import TaskKind
from edgekit.errors import ModelError
from edgekit.nn.families import Family
from edgekit.nn.load import load_classifier, read_edits

if TYPE_CHECKING:
    import torch

__all__ = ["Source", "Weights", "open_weights", "tensor_plan"]

OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}  # checkpoints of 2018


@dataclass(frozen=True)
class Source:
    """Where a GGUF tensor comes from: weights stacked along their first axis, maybe only some rows of them."""

    names: tuple[str, ...]
    start: int = 0
    stop: int | None = None

    @property
    def rows(self) -> slice:
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class OnDisk:
    """A weight in a safetensors file, under the name it has there."""

    file: Any
    name: str

    def shape(self) -> tuple[int, ...]:
        return tuple(self.file.get_slice(self.name).get_shape())

    def read(self) -> torch.Tensor:
        return cast("torch.Tensor", self.file.get_tensor(self.name))


@dataclass(frozen=True)
class InMemory:
    """A weight that is loaded already."""

    tensor: torch.Tensor

    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    def read(self) -> torch.Tensor:
        return self.tensor.detach()


@dataclass
class Weights:
    """Named weights, read when they are asked for; `merged` names the low-rank layers that were multiplied out."""

    known: Mapping[str, OnDisk | InMemory]
    merged: tuple[str, ...] = ()
    merged_parameters: int = 0
    files: ExitStack = field(default_factory=ExitStack)

    def shape(self, source: Source) -> tuple[int, ...]:
        """The tensor's shape, without reading it. Raises ModelError where a weight is missing."""
        shapes = [self._find(name).shape() for name in source.names]
        first = sum(len(range(*source.rows.indices(shape[0]))) for shape in shapes)
        return (first, *shapes[0][1:])

    def get(self, source: Source) -> NDArray[np.float32]:
        """The tensor, float32, contiguous. Raises ModelError where a weight is missing."""
        parts = [self._find(name).read().float().numpy()[source.rows] for name in source.names]
        return np.ascontiguousarray(np.concatenate(parts) if len(parts) > 1 else parts[0], dtype=np.float32)

    def _find(self, name: str) -> OnDisk | InMemory:
        if name not in self.known:
            raise ModelError(
                f"the model has no weight {name!r}", hint="is it a fine-tuned classifier, or a whole encoder?"
            )
        return self.known[name]

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, *_: object) -> None:
        self.files.close()


def open_weights(folder: Path, family: Family, kind: TaskKind) -> Weights:
    """The folder's weights: lazily from safetensors, or, where layers are low-rank, from the model with them merged.

    Names are those in a model with a head: a bare encoder's get the backbone's name before them.

    Raises ModelError for a folder without safetensors, or with a damaged file.
    """
    from safetensors import SafetensorError, safe_open

    if read_edits(folder).low_rank:
        return _merged_weights(folder, kind)
    stack = ExitStack()
    known: dict[str, OnDisk | InMemory] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            file = stack.enter_context(safe_open(path, framework="pt"))
        except SafetensorError as error:
            stack.close()
            raise ModelError(f"{path}: damaged ({error})") from None
        known |= {_current_name(name): OnDisk(file, name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    if not known:
        raise ModelError(f"{folder} has no model.safetensors")
    root = f"{family.backbone}."
    if not any(name.startswith(root) for name in known):
        known = {root + name: weight for name, weight in known.items()}
    return Weights(known, files=stack)


def _current_name(name: str) -> str:
    for old, current in OLD_NAMES.items():
        name = name.replace(old, current)
    return name


def _merged_weights(folder: Path, kind: TaskKind) -> Weights:
    """Low-rank factors multiplied out. The tensors of a whole model are in memory here: small encoders are."""
    from edgekit.nn.surgery import merge_low_rank

    model = load_classifier(folder, kind=kind)
    before = sum(p.numel() for p in model.parameters())
    merged, names = merge_low_rank(model)
    state = merged.state_dict()
    cost = sum(p.numel() for p in merged.parameters()) - before
    return Weights({name: InMemory(tensor) for name, tensor in state.items()}, tuple(names), cost)


def tensor_plan(
    family: Family, layers: int, head: tuple[str, str] | None, positions: tuple[int, int]
) -> dict[str, Source]:
    """GGUF tensor name -> weights, in the order they are written.

    `head`: the dense layer before the tanh and the one after it; None for an embedder. `positions`: first and last + 1
    of the position embeddings to keep.
    """
    root, types = family.backbone, family.type_embeddings
    plan = {
        "token_embd.weight": Source((f"{root}.{family.word_embeddings}.weight",)),
        "position_embd.weight": Source((f"{root}.{family.position_embeddings}.weight",), *positions),
        **({"token_types.weight": Source((f"{root}.{types}.weight",), 0, 1)} if types else {}),
        **_affine("token_embd_norm", f"{root}.{family.embedding_norm}"),
    }
    for number in range(layers):
        layer, block = f"{root}.{family.layers}.{number}", f"blk.{number}"
        plan |= _affine(f"{block}.attn_qkv", *(f"{layer}.{p}" for p in (family.query, family.key, family.value)))
        plan |= _affine(f"{block}.attn_output", f"{layer}.{family.attention_output}")
        plan |= _affine(f"{block}.attn_output_norm", f"{layer}.{family.attention_norm}")
        plan |= _affine(f"{block}.ffn_up", f"{layer}.{family.ffn_up}")
        plan |= _affine(f"{block}.ffn_down", f"{layer}.{family.ffn_down}")
        plan |= _affine(f"{block}.layer_output_norm", f"{layer}.{family.ffn_norm}")
    return plan if head is None else plan | _affine("cls", head[0]) | _affine("cls.output", head[1])


def _affine(name: str, *modules: str) -> dict[str, Source]:
    """Weight and bias of one module, or of several stacked."""
    return {f"{name}.{part}": Source(tuple(f"{m}.{part}" for m in modules)) for part in ("weight", "bias")}
