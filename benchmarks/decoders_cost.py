"""Time and memory from safetensors to quantized GGUF, for a model of true shape (1.1 thousand million random weights in
bfloat16): edgekit's one pass against llama.cpp's converter followed by its quantizer, by turns.

Each side runs in fresh processes, its inputs in the page cache, its files on the same disk, with both cores. The
comparison with torch that `lm-export` adds is left out: the peers have none. Both files' tensors must be equal.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.decoders_bed import Bed
from benchmarks.decoders_identical import equal_tensors
from benchmarks.decoders_model import TRUE_SHAPE, write_model
from benchmarks.record import PEERS, Figure, peers_folder
from edgekit.errors import StageError

__all__ = ["figures"]

FIGURES = {"q8_0": "gguf.time_ratio", "q4_k_m": "gguf.time_ratio_q4_k_m"}
ROUNDS = 3
MB = 1e6


@dataclass(frozen=True)
class Took:
    """Wall and processor time (s) and the largest process (bytes)."""

    seconds: float
    cpu: float
    rss: int

    def then(self, other: Took) -> Took:
        return Took(self.seconds + other.seconds, self.cpu + other.cpu, max(self.rss, other.rss))


def figures(bed: Bed, scratch: Path) -> Iterator[Figure]:
    converter = llama_cpp_sources() / "convert_hf_to_gguf.py"
    bed.progress.say("writing a model of random weights")
    shape = {**TRUE_SHAPE, "num_hidden_layers": 1} if bed.quick else TRUE_SHAPE
    model = scratch / "model"
    largest = write_model(model, shape, bed.sets.parent / "models" / "stories260K")
    peaks: list[tuple[Took, Took]] = []
    for kind, name in FIGURES.items():
        found, same = rounds(bed, model, scratch, kind, converter)
        peaks += found
        yield time_ratio(name, kind, found, same)
    ours, theirs = (max(took[side].rss for took in peaks) for side in (0, 1))
    yield Figure(
        figure="gguf.peak_rss_bytes",
        value=ours,
        unit="B",
        against="llama.cpp's converter and quantizer, the larger",
        n=len(peaks),
        conditions=f"largest resident set of {len(peaks)} runs; theirs {theirs / MB:,.0f} MB ({theirs / ours:.1f} "
        f"times); the largest tensor has {largest / MB:,.0f} MB, so 3 x that + 300 MB is {3 * largest / MB + 300:,.0f}",
    )


def rounds(
    bed: Bed, model: Path, scratch: Path, kind: str, converter: Path
) -> tuple[list[tuple[Took, Took]], tuple[int, int]]:
    """What ours and theirs took, by turns, and how many tensors came out equal, of how many."""
    ours, theirs, plain = (scratch / f"{name}.gguf" for name in ("ours", "theirs", "plain"))
    found = []
    count = 1 if bed.quick else ROUNDS
    for _ in bed.progress.track(range(count), f"1B to {kind}", count):
        first = watched(PEERS / "edgekit_gguf.py", model, ours, kind)
        second = watched(converter, model, "--outfile", plain, "--outtype", "bf16")
        found.append((first, second.then(watched(PEERS / "llama_quantize.py", plain, theirs, kind))))
    same = equal_tensors(ours, theirs)
    for file in (ours, theirs, plain):
        file.unlink()
    return found, same


def time_ratio(name: str, kind: str, found: Sequence[tuple[Took, Took]], same: tuple[int, int]) -> Figure:
    ratios = [theirs.seconds / ours.seconds for ours, theirs in found]

    def told(side: int) -> str:
        took = [pair[side] for pair in found]
        wall, cpu = (statistics.median(getattr(t, what) for t in took) for what in ("seconds", "cpu"))
        return f"{wall:.1f} s ({cpu:.0f} s of processor time, {max(t.rss for t in took) / MB:,.0f} MB)"

    return Figure(
        figure=name,
        value=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        unit="x",
        against="llama.cpp's converter (to bf16) followed by its quantizer",
        n=len(ratios),
        conditions=f"{kind}, 1.1e9 weights in bf16; ours {told(0)}, theirs {told(1)}; least and largest ratio in "
        f"brackets; {same[0]} of {same[1]} tensors equal",
    )


def watched(program: Path, *arguments: Path | str) -> Took:
    """A Python program, run by itself. Raises StageError where it fails."""
    whole = [sys.executable, "-S", str(PEERS / "watched.py"), sys.executable, str(program), *map(str, arguments)]
    done = subprocess.run(whole, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        raise StageError(f"{program.name} failed: {last}")
    return Took(**json.loads(done.stdout))


def llama_cpp_sources() -> Path:
    """llama.cpp as the source distribution of the installed llama-cpp-python carries it, below build/peers."""
    home = peers_folder()
    name = f"llama_cpp_python-{version('llama-cpp-python')}"
    sources = home / name / "vendor" / "llama.cpp"
    if not sources.is_dir():
        fetch = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", str(home)]
        subprocess.run([*fetch, name.replace("_", "-").replace("python-", "python==")], check=True)
        subprocess.run(["tar", "-xf", str(home / f"{name}.tar.gz"), "-C", str(home)], check=True)
    return sources
