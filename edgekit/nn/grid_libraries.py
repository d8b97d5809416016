"""AWQ and AutoRound by the auto-round library: its rounding, laid on the grids that every format holds."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from edgekit.errors import MissingExtraError, StageError
from edgekit.nn.decoder_families import decoder_family
from edgekit.nn.grid import GridKind, blocked, grid_of, held_scales, snap, values_of
from edgekit.nn.grid_quantize import HEAD, Quantized, quantize_matrix, weight_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["Library", "quantize_by_library"]

Library = Literal["awq", "autoround"]
ALGORITHMS: dict[Library, str] = {"awq": "awq", "autoround": "auto_round"}
EXTRA = "auto-round"


def quantize_by_library(
    model: PreTrainedModel,
    folder: Path,
    batches: Sequence[torch.Tensor],
    kinds: Mapping[str, GridKind],
    method: Library,
) -> tuple[PreTrainedModel, list[Quantized]]:
    """The model (loaded from `folder`, whose tokenizer the library asks for) with the modules of `kinds` quantized; AWQ
    moves scales into its norms, too.

    The library picks scales and integers. Beside zero points its scales lose all but 7 significant bits, and its values
    go to the nearest that are left: `error` is that loss alone, of the weights. The head, which the library leaves, is
    rounded to nearest. `batches`: token ids (batch, length).
    Raises MissingExtraError where auto-round is not installed, StageError where it left a module as it was.
    """
    inner = {name: kind for name, kind in kinds.items() if name != HEAD}
    made = _rounded(model, folder, batches, inner, method)
    found = [_laid(made, name, kind) for name, kind in inner.items()]
    if HEAD in kinds:
        found.append(quantize_matrix(made, HEAD, kinds[HEAD], None, "rtn"))
    return made, found


def _rounded(
    model: PreTrainedModel,
    folder: Path,
    batches: Sequence[torch.Tensor],
    kinds: Mapping[str, GridKind],
    method: Library,
) -> PreTrainedModel:
    """What the library makes of the model: its modules hold rounded weights, `scale` and `zp`."""
    import torch
    from transformers import AutoTokenizer

    try:
        from auto_round import AutoRound
    except ModuleNotFoundError:
        raise MissingExtraError("auto-round", EXTRA) from None
    family, kind = decoder_family(model.config.model_type), next(iter(kinds.values()))
    layers = range(model.config.num_hidden_layers)
    others = {f"{family.layers}.{i}.{matrix}" for i in layers for matrix in family.matrices} - kinds.keys()
    rows = [row[None] for batch in batches for row in batch]
    with _quiet():
        rounding = AutoRound(
            model,
            AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False),
            alg_configs=ALGORITHMS[method],
            bits=kind.bits,
            group_size=kind.block,
            sym=kind.symmetric,
            layer_config={name: {"bits": 16} for name in others},
            dataset=[{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in rows],
            nsamples=len(rows),
            seqlen=rows[0].shape[1],
            device_map=str(model.device),
            enable_torch_compile=False,
        )
        made = rounding.quantize()[0]
    return cast("PreTrainedModel", made.float().eval())


def _laid(model: PreTrainedModel, name: str, kind: GridKind) -> Quantized:
    """The module's weights on a grid of the library's scales and zero points, in place."""
    import torch

    module: Any = model.get_submodule(name)
    if getattr(module, "scale", None) is None:
        raise StageError(f"auto-round left {name} as it was", hint="leave it out with --exclude, or take --method gptq")
    weight = weight_of(model, name)
    before = weight.detach().float()
    scales = held_scales(module.scale.float().reshape(len(before), -1), kind)
    zeros = torch.full_like(scales, kind.middle)
    if not kind.symmetric:
        zeros = module.zp.float().reshape(scales.shape)
    codes = snap(blocked(before, kind), scales[..., None], zeros[..., None], kind).flatten(1)
    after = values_of(codes, scales, zeros, kind)
    weight.data.copy_(after)
    error = float((before - after).square().sum() / before.square().sum().clamp_min(1e-30))
    return Quantized(name, grid_of(codes, scales, zeros, kind), error)


@contextmanager
def _quiet() -> Iterator[None]:
    """The library tells all it does, by its own handlers and progress bars; our facts say what matters."""
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
