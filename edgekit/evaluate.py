"""Accuracy of the file itself, in its own runtime, and its comparison example by example with what it came from."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.artifact import Artifact, Frozen, library_versions
from edgekit.data.table import Table
from edgekit.digest import digest_json
from edgekit.errors import DataError, DeviceError, StoreError
from edgekit.jobs import Call
from edgekit.machine import default_threads
from edgekit.running import limit_for, read_samples, threads_for
from edgekit.runtimes import RUNTIMES, Runtimes, runtime_of
from edgekit.runtimes.base import inputs_of, task_of
from edgekit.statistics import Drop, mcnemar, paired_difference
from edgekit.tasks.base import Judged
from edgekit.tasks.encoders import examples_of
from edgekit.transports import LOCAL, Transport

__all__ = ["Predictions", "judge", "paired_drop", "predict", "predict_torch"]

SECONDS_PER_ROW = 2.0  # of the time limit: generous for a small board, finite for a hung job


class _Info(Frozen):
    """What a cache file says of its logits."""

    runtime: str
    version: str
    providers: tuple[str, ...]
    peak_rss_bytes: int


@dataclass(frozen=True)
class Predictions:
    """`logits` (places, width) float32 as `tasks.base.Examples` lays them out, in the table's order, and what computed
    them. `cached`: read, not computed."""

    logits: NDArray[np.float32]
    runtime: str
    version: str
    providers: tuple[str, ...] = ()
    peak_rss_bytes: int = 0
    cached: bool = False


def predict(
    artifact: Artifact,
    table: Table,
    *,
    threads: int = 0,
    batch: int = 1,
    transport: Transport = LOCAL,
    runtimes: Runtimes = RUNTIMES,
    cache: Path | None = None,
) -> Predictions:
    """Logits of every place, computed by the one of `runtimes` for the artifact's format in a fresh process.

    Rows go one by one unless `batch` says otherwise: a dynamically quantized file scales its activations over the whole
    batch, so its answers depend on the neighbours. `cache`: a folder where logits are kept, keyed by the files, data,
    runtime, what it computes on, its versions and processor. Raises DataError for an empty table, DeviceError where
    the runtime fails.
    """
    if len(table) == 0:
        raise DataError(f"{table.name} is empty")
    task = task_of(artifact)
    runtime = runtime_of(artifact, runtimes)
    key = digest_json(
        {
            "files": artifact.content,
            "task": task.model_dump(mode="json"),
            "data": table.digest,
            "runtime": {"name": runtime.name, "provider": runtime.provider},
            "where": {"transport": transport.name, **transport.identity(runtime.libraries)},
            "batch": batch,
        }
    )
    file = cache / f"{key}.safetensors" if cache is not None else None
    if file is not None and (kept := _read(file)) is not None:
        return kept
    timeout = limit_for(transport, 300.0 + SECONDS_PER_ROW * len(table))
    call = Call("predict", threads or threads_for(transport), batch=batch, timeout=timeout)
    completed = transport.run(runtime.job(artifact, inputs_of(artifact, table, one=False), call))
    samples = read_samples(runtime, completed.raw, transport)
    shape = None if samples.logits is None else samples.logits.shape
    width = len(task.labels) or (shape[-1] if shape else 0)  # of an embedding, whatever it is
    wanted = examples_of(artifact.path, table, task).places, width
    if samples.logits is None or shape != wanted:
        raise DeviceError(f"{artifact.path}: logits {shape} instead of {wanted}")
    done = Predictions(samples.logits, samples.runtime, samples.version, samples.providers, samples.peak_rss_bytes)
    if file is not None:
        _write(file, done)
    return done


def predict_torch(
    artifact: Artifact, table: Table, *, threads: int = 0, device: str = "cpu", cache: Path | None = None
) -> Predictions:
    """Logits of an `hf` artifact by eager PyTorch in this process: the reference, quick enough after every step.

    `cache` as in `predict`. Raises DataError for an empty table, ModelError where the folder cannot be loaded.
    """
    if len(table) == 0:
        raise DataError(f"{table.name} is empty")
    libraries = library_versions(("torch", "transformers", "tokenizers"))
    key = digest_json(
        {
            "files": artifact.content,
            "task": task_of(artifact).model_dump(mode="json"),
            "data": table.digest,
            "runtime": "torch",
            "device": device,
            "libraries": {**libraries},
        }
    )
    file = cache / f"{key}.safetensors" if cache is not None else None
    if file is not None and (found := _read(file)) is not None:
        return found
    done = _run_torch(artifact, table, threads, device)
    if file is not None:
        _write(file, done)
    return done


def _run_torch(artifact: Artifact, table: Table, threads: int, device: str) -> Predictions:
    import torch

    from edgekit.nn.evaluate import logits_of
    from edgekit.nn.load import load_classifier

    task = task_of(artifact)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or default_threads())
    try:
        model = load_classifier(artifact.path, kind=task.kind, device=device)
        logits = logits_of(model, examples_of(artifact.path, table, task).encoded, device=device)
    finally:
        torch.set_num_threads(before)
    return Predictions(logits, "torch", torch.__version__, (device,))


def judge(artifact: Artifact, predictions: Predictions, table: Table) -> Judged:
    """What its predictions say, and are worth. Raises DataError for labels that the task does not know."""
    examples = examples_of(artifact.path, table, task_of(artifact))
    return examples.judge(examples.read(predictions.logits))


def paired_drop(parent: NDArray[np.bool_], child: NDArray[np.bool_]) -> Drop:
    """Accuracy of `parent` minus accuracy of `child`, (rows,) each, on the same rows: 95% interval, exact McNemar p.

    Raises ValueError where the rows are not the same number, or none.
    """
    if len(parent) != len(child):
        raise ValueError(f"{len(parent)} and {len(child)} rows cannot be paired")
    only_parent, only_child = int(np.sum(parent & ~child)), int(np.sum(child & ~parent))
    found = paired_difference(only_parent, only_child, len(parent))
    return Drop(value=found.value, low=found.low, high=found.high, p_value=mcnemar(only_parent, only_child))


def _read(file: Path) -> Predictions | None:
    """Cached predictions; None where there are none, or the file is damaged (it is then computed anew)."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="numpy") as opened:
            info = json.loads(opened.metadata()["info"])
            logits = np.array(opened.get_tensor("logits"), dtype=np.float32)
        return Predictions(logits, cached=True, **_Info.model_validate(info).model_dump())
    except FileNotFoundError:
        return None
    except (SafetensorError, KeyError, TypeError, ValueError):
        return None


def _write(file: Path, predictions: Predictions) -> None:
    """Write in one piece, so that two runs may share the folder."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    info = {name: value for name, value in asdict(predictions).items() if name not in ("logits", "cached")}
    partial = file.with_suffix(f".{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({"logits": np.ascontiguousarray(predictions.logits)}, partial, {"info": json.dumps(info)})
        partial.replace(file)
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{file.parent}: cannot be written ({error})") from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
