"""What makes one file slow or large: its bytes by kind, the matrices that stayed in float, its time by operator."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from edgekit.advice import Traits, advice, lacks
from edgekit.artifact import Artifact, Frozen, Task
from edgekit.data.pictures import of_pictures as pictures
from edgekit.errors import UsageError
from edgekit.explain import precision_of
from edgekit.formats.anatomy import FLOATS, Piece, pieces
from edgekit.jobs import Inputs
from edgekit.machine import Machine
from edgekit.runtimes.base import inputs_of, task_of
from edgekit.runtimes.profile import PROFILED, Profile, profile_job, read_profile
from edgekit.tasks.encoders import of_pictures
from edgekit.transports import LOCAL

__all__ = ["Diagnosis", "OperatorTime", "Share", "diagnose", "measure_profile"]

WEIGHTS = ("matrices", "embedding tables")


class Share(Frozen):
    """Tensors of one kind and type ("" for the graph): how many, and their bytes. `before`: those of the parent."""

    kind: str
    type: str
    count: int
    bytes: int
    before: int | None = None


class OperatorTime(Frozen):
    """An operator as the runtime executes it: how many nodes, and milliseconds of an inference. `fused`: the file has
    no such operator, the runtime makes it of others."""

    operator: str
    count: int
    ms: float
    fused: bool = False
    before: float | None = None


class InFloat(Frozen):
    """A matrix product or lookup whose weights are float."""

    name: str
    type: str
    bytes: int


class Diagnosis(Frozen):
    """All of it. Times are of one inference of `batch` x `length` tokens on `threads` threads; without a profile they
    are empty. `lacks`: of the processor; `advice`: what to try, the largest gain first."""

    file: str
    format: str
    precision: str
    size_bytes: int
    parent: str = ""
    shares: tuple[Share, ...]
    in_float: tuple[InFloat, ...]
    batch: int = 0
    length: int = 0
    threads: int = 0
    wall_ms: float = 0.0
    wall_before: float | None = None
    operators: tuple[OperatorTime, ...] = ()
    cpu: str
    lacks: tuple[str, ...]
    advice: tuple[str, ...]


def diagnose(
    artifact: Artifact,
    machine: Machine,
    *,
    profile: Profile | None = None,
    parent: Artifact | None = None,
    parent_profile: Profile | None = None,
    shape: tuple[int, int, int] = (0, 0, 0),
) -> Diagnosis:
    """Explain a file from its tensors and its profile. `shape`: batch, length and threads of the profiles.

    Raises UsageError for a format that has no single model file.
    """
    found = _pieces(artifact)
    old = _pieces(parent) if parent is not None else []
    shares = _shares(found, old if parent is not None else None)
    operators = _operators(artifact, profile, parent_profile) if profile else ()
    traits = Traits(
        artifact.format,
        precision_of(artifact),
        {(share.kind, share.type): share.bytes for share in shares},
        {operator.operator: operator.ms for operator in operators},
        profile.wall_ms if profile else 0.0,
    )
    batch, length, threads = shape
    return Diagnosis(
        file=artifact.path.name,
        format=artifact.format,
        precision=traits.precision,
        size_bytes=sum(piece.bytes for piece in found),
        parent=parent.path.name if parent is not None else "",
        shares=shares,
        in_float=tuple(InFloat(name=p.name, type=p.type, bytes=p.bytes) for p in found if _in_float(p)),
        batch=batch,
        length=length,
        threads=threads,
        wall_ms=traits.wall_ms,
        wall_before=parent_profile.wall_ms if parent_profile else None,
        operators=operators,
        cpu=machine.cpu,
        lacks=lacks(machine),
        advice=advice(traits, machine),
    )


def measure_profile(artifact: Artifact, batch: int, length: int, threads: int) -> Profile | None:
    """Time the file's operators on texts of `length` tokens, or on pictures, in a fresh process; None for a format
    without a profiler.

    Raises DeviceError where the runtime fails, UsageError for texts longer than the model takes.
    """
    if artifact.format not in PROFILED:
        return None
    task = task_of(artifact)
    if of_pictures(task.kind):
        inputs = inputs_of(artifact, pictures([_blank()] * batch))
    elif length > task.max_length:
        raise UsageError(f"texts of {length} tokens, the file takes {task.max_length}", hint="a smaller --length")
    else:
        inputs = _texts(artifact, task, batch, length)
    return read_profile(artifact, LOCAL.run(profile_job(artifact, inputs, threads, batch)).raw)


def _blank() -> bytes:
    """A picture: times do not depend on what it shows."""
    from io import BytesIO

    from PIL import Image

    file = BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


def _texts(artifact: Artifact, task: Task, batch: int, length: int) -> Inputs:
    """Words enough for `length` tokens, which is where they are cut: times depend on how many, not on which."""
    from edgekit.data.table import Table

    text = "a " * length
    table = Table((text,) * batch, (text,) * batch if task.pair else None)
    return inputs_of(artifact, table, length)


def _pieces(artifact: Artifact) -> list[Piece]:
    if artifact.format not in ("onnx", "openvino", "gguf"):
        hint = "export it first; edgekit inspect says what a folder is"
        raise UsageError(f"{artifact.path}: a {artifact.format} folder has no file to explain", hint=hint)
    return pieces(artifact.model_file)


def _in_float(piece: Piece) -> bool:
    return piece.kind in WEIGHTS and piece.type in FLOATS


def _shares(found: Iterable[Piece], before: Iterable[Piece] | None) -> tuple[Share, ...]:
    """By kind and type, the largest first; those that only the parent has at the end."""
    size, count = _sums(found)
    old = _sums(before)[0] if before is not None else None
    keys = [*sorted(size, key=lambda key: -size[key]), *sorted(set(old or ()) - set(size))]
    return tuple(
        Share(
            kind=kind,
            type=kept,
            count=count[kind, kept],
            bytes=size[kind, kept],
            before=old[kind, kept] if old is not None else None,
        )
        for kind, kept in keys
    )


def _sums(found: Iterable[Piece]) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    size: Counter[tuple[str, str]] = Counter()
    count: Counter[tuple[str, str]] = Counter()
    for piece in found:
        size[piece.kind, piece.type] += piece.bytes
        count[piece.kind, piece.type] += 1
    return size, count


def _operators(artifact: Artifact, profile: Profile, before: Profile | None) -> tuple[OperatorTime, ...]:
    """By operator, the slowest first; those that only the parent executes at the end."""
    known = _own_operators(artifact)
    times, count = _times(profile)
    old = _times(before)[0] if before is not None else None
    names = [*sorted(times, key=lambda name: -times[name]), *sorted(set(old or ()) - set(times))]
    return tuple(
        OperatorTime(
            operator=name,
            count=count[name],
            ms=times.get(name, 0.0),
            fused=name in times and name.split(" ")[0] not in known,
            before=None if old is None else old.get(name, 0.0),
        )
        for name in names
    )


def _times(profile: Profile) -> tuple[dict[str, float], Counter[str]]:
    times: dict[str, float] = defaultdict(float)
    count: Counter[str] = Counter()
    for node in profile.nodes:
        times[node.operator] += node.ms
        count[node.operator] += 1
    return times, count


def _own_operators(artifact: Artifact) -> set[str]:
    from edgekit.inspect import describe_artifact

    found = describe_artifact(artifact)["operators"]
    assert isinstance(found, dict)
    return set(found)
