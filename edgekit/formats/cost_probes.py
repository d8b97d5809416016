"""Measuring a table of costs: files of a few structures, timed by turns.

Where ONNX Runtime has an operator for the attention, one export is narrowed in the graph, which takes no time. The
graphs of DeBERTa, MPNet and ModernBERT do not say where a head begins: there the model is narrowed, and exported each
time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgekit.artifact import Artifact, Facts, Manifest, Task
from edgekit.data.table import Table
from edgekit.errors import StageError
from edgekit.formats.cost_table import CostTable, Curve, Precision, fit, knots
from edgekit.formats.onnx_graph import load_model, save_model
from edgekit.nn.structure import Structure, Widths, widths_of
from edgekit.progress import Progress, Silent
from edgekit.relative import Feed, Relative, relative_times
from edgekit.runtimes import RUNTIMES, Runtimes, Workload
from edgekit.runtimes.base import inputs_of
from edgekit.transports import LOCAL, Transport

if TYPE_CHECKING:
    import onnx_ir as ir
    from transformers import PreTrainedModel

    from edgekit.formats.onnx_narrow import LayerNames
    from edgekit.nn.narrow import Width

__all__ = ["Probes", "designed", "measure_costs", "random_structures"]


class Writer(Protocol):
    """Writes the f32 ONNX file of a structure."""

    def __call__(self, structure: Structure, file: Path) -> None: ...


@dataclass(frozen=True)
class Probes:
    """An encoder, to be narrowed and timed: what writes its files, the folder it came from, and what it is fed."""

    write: Writer
    widths: Widths
    source: Path
    task: Task
    feed: Feed
    precision: Precision = "f32"
    transport: Transport = LOCAL
    runtimes: Runtimes | None = None

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        source: Path,
        task: Task,
        table: Table,
        *,
        threads: int,
        batch: int = 1,
        length: int = 0,
        precision: Precision = "f32",
        seconds: float = 4.0,
        transport: Transport = LOCAL,
    ) -> Probes:
        """Of `model`, from the folder `source`. `length` 0: lengths are those of the table's texts; `seconds` that a
        sitting takes."""
        from edgekit.schedule import choose_rows, fixed_length

        rows = table.take(choose_rows(table, Workload(batch=batch, throughput_batches=(), items=32)))
        fed = fixed_length(rows, length) if length else rows
        with tempfile.TemporaryDirectory() as folder:
            draft = _artifact(source, Path(folder), task)
            feed = Feed(inputs_of(draft, fed, length or None), threads, batch, seconds)
        return cls(_writer(model, task), widths_of(model), source, task, feed, precision, transport)

    def time(self, structures: Sequence[Structure], progress: Progress | None = None) -> Relative:
        """Times of the structures, named by their numbers, against the whole model, named "whole"."""
        with tempfile.TemporaryDirectory() as folder:
            named = {"whole": self.widths.whole} | {str(at): structure for at, structure in enumerate(structures)}
            each = (progress or Silent()).track(named.items(), "files", len(named))
            files = {name: self._write(Path(folder) / name, structure) for name, structure in each}
            runtimes = self.runtimes or RUNTIMES
            return relative_times(
                files, "whole", self.feed, transport=self.transport, runtimes=runtimes, progress=progress
            )

    def _write(self, folder: Path, structure: Structure) -> Artifact:
        from edgekit.formats.onnx_quantize import quantize_onnx

        folder.mkdir()
        file = folder / "model.onnx"
        self.write(structure, file)
        if self.precision == "int8":
            quantize_onnx(file, folder / "int8.onnx", "int8-dynamic")
            (folder / "int8.onnx").replace(file)
        return _artifact(self.source, folder, self.task)


def _writer(model: PreTrainedModel, task: Task) -> Writer:
    """In the graph where that can be done, else in the model."""
    from edgekit.formats.onnx_encoder import write_onnx
    from edgekit.formats.onnx_narrow import layer_names

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        write_onnx(deepcopy(model), task, file)  # it changes how a model computes its attention
        in_graph = _GraphWriter(load_model(file), layer_names(model), widths_of(model))
        try:
            in_graph(in_graph.widths.whole, file)
        except StageError:
            return _ModelWriter(model, task)
    return in_graph


@dataclass(frozen=True)
class _GraphWriter:
    graph: ir.Model
    names: Sequence[LayerNames]
    widths: Widths

    def __call__(self, structure: Structure, file: Path) -> None:
        from edgekit.formats.onnx_narrow import narrow_graph

        narrowed = self.graph.clone()
        narrow_graph(narrowed, self.names, structure.heads, structure.ffn, self.widths.head_size)
        save_model(narrowed, file)


@dataclass(frozen=True)
class _ModelWriter:
    model: PreTrainedModel
    task: Task

    def __call__(self, structure: Structure, file: Path) -> None:
        import torch

        from edgekit.formats.onnx_encoder import write_onnx
        from edgekit.nn.narrow import narrow

        model = deepcopy(self.model)
        sizes: dict[Width, tuple[int, ...]] = {"heads": structure.heads, "ffn": structure.ffn}
        narrow(model, {width: {i: torch.arange(n) for i, n in enumerate(each)} for width, each in sizes.items()})
        write_onnx(model, self.task, file)


def measure_costs(probes: Probes, unit: int, *, seed: int = 0, progress: Progress | None = None) -> CostTable:
    """Time about twenty structures and fit the table. `unit`: FFN widths will be multiples of it."""
    structures = designed(probes.widths, unit, seed)
    found = probes.time(structures, progress or Silent())
    shares = [found.shares[str(number)] for number in range(len(structures))]
    smallest, curves, error = fit([*structures, probes.widths.whole], [*shares, 1.0], probes.widths, unit)
    scaled = [Curve(sizes=c.sizes, ms=tuple(found.reference_ms * ms for ms in c.ms)) for c in curves]
    return CostTable(
        machine=probes.transport.identity(("onnxruntime",)),
        runtime=found.runtime,
        threads=probes.feed.threads,
        batch=probes.feed.batch,
        tokens=_mean_tokens(probes),
        precision=probes.precision,
        widths=probes.widths,
        whole_ms=found.reference_ms,
        smallest_ms=found.reference_ms * smallest,
        heads=scaled[0],
        ffn=scaled[1],
        last_heads=scaled[2],
        last_ffn=scaled[3],
        error=error,
        measured=len(structures) + 1,
    )


def designed(widths: Widths, unit: int, seed: int) -> list[Structure]:
    """What is timed: each size at which a curve bends, alone in all layers; the smallest; the last layer alone at its
    smallest; and random ones, so that there are two sittings in all."""
    bends, whole = knots(widths, unit), widths.whole
    found = [whole.model_copy(update={"heads": (n,) * widths.layers}) for n in bends.heads[:-1]]
    found += [whole.model_copy(update={"ffn": (n,) * widths.layers}) for n in bends.ffn[:-1]]
    found.append(Structure(heads=(bends.heads[0],) * widths.layers, ffn=(bends.ffn[0],) * widths.layers))
    found.append(whole.model_copy(update={"heads": (*whole.heads[:-1], 1)}))
    found.append(whole.model_copy(update={"ffn": (*whole.ffn[:-1], bends.ffn[0])}))
    return found + random_structures(widths, unit, max(4, 16 - len(found)), seed)


def random_structures(widths: Widths, unit: int, count: int, seed: int) -> list[Structure]:
    """Every layer's heads and neurons (multiples of `unit`, or all) drawn evenly from one to all."""
    dice = np.random.default_rng(seed)
    levels = widths.levels(unit)[1]
    return [
        Structure(
            heads=tuple(int(n) for n in dice.integers(1, widths.heads, widths.layers, endpoint=True)),
            ffn=tuple(int(n) for n in dice.choice(levels, widths.layers)),
        )
        for _ in range(count)
    ]


def _mean_tokens(probes: Probes) -> float:
    if probes.feed.inputs.pixels is not None:
        return float(probes.task.max_length)
    from edgekit.runtimes.token_ids import token_ids

    with tempfile.TemporaryDirectory() as folder:
        draft = _artifact(probes.source, Path(folder), probes.task)
        return float(np.mean([len(ids) for ids, _ in token_ids(draft, probes.feed.inputs)]))


def _artifact(source: Path, folder: Path, task: Task) -> Artifact:
    """The folder, with the source's tokenizer, as something that a runtime executes."""
    from edgekit.formats.package import write_package

    write_package(source, task, folder, "onnx")
    manifest = Manifest(
        key=folder.name,
        format="onnx",
        stage="probe",
        stage_version=0,
        config={},
        parents={},
        files={},  # they are not looked up by their digests, and a digest of each would take seconds
        libraries={},
        facts=Facts(summary="a structure to be timed"),
        task=task,
    )
    return Artifact(folder, manifest)
