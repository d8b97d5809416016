"""How a benchmark's figures are kept: one JSON object a line, appended with the machine and the commit."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from edgekit.artifact import Frozen
from edgekit.errors import StageError
from edgekit.machine import describe

__all__ = [
    "OLIVE",
    "PEERS",
    "RESULTS",
    "TORCH",
    "Figure",
    "arguments",
    "data_folder",
    "keep",
    "peer_python",
    "peers_folder",
    "run_peer",
]

RESULTS = Path(__file__).parent / "results"
PEERS = Path(__file__).parent / "peers"  # scripts that run in peers' processes and environments
TORCH = "torch==2.13.0"
OLIVE = (TORCH, "olive-ai==0.13.*", "transformers==5.23.*", "onnxruntime", "onnxruntime-genai==0.14.*", "requests")
ALONE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OLIVE_DISABLE_TELEMETRY": "1"}


class Figure(Frozen):
    """One figure. Rates are fractions; `speedup` and `size_ratio` are theirs / ours."""

    figure: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    against: str = ""
    n: int = 1
    conditions: str = ""


def arguments(description: str, parts: Sequence[str] = ()) -> argparse.Namespace:
    """The options that every benchmark has; `parts`: those that can be run alone."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if parts:
        parser.add_argument("--only", action="append", choices=parts, help="one part (may be given again)")
    parser.add_argument("--quick", action="store_true", help="smaller, to see that it runs; nothing is kept")
    parser.add_argument("--json", action="store_true", help="figures as JSON lines on stdout")
    return parser.parse_args()


def data_folder() -> Path | None:
    """The shared data sets beside the checkout; None where they are not."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "sets"
    return folder if folder.is_dir() else None


def peers_folder() -> Path:
    """Where peers are set up: they stay there, since that takes minutes."""
    folder = Path(__file__).resolve().parents[1] / "build" / "peers"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def peer_python(name: str, *packages: str) -> Path:
    """The Python of an environment of its own with these packages; it is made where it is not there."""
    home = peers_folder() / name
    python = home / "bin" / "python"
    if not (home / "ready").is_file():
        print(f"setting up {name} in {home}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
        (home / "ready").touch()
    return python


def run_peer(python: Path, script: str, *given: str | Path) -> None:
    """Run a script of `peers/`. Raises StageError with the last that it said where it fails."""
    command = [str(part) for part in (python, PEERS / script, *given)]
    done = subprocess.run(command, env=os.environ | ALONE, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise StageError((said or [f"exit code {done.returncode}"])[-1].strip())


def keep(name: str, figures: Sequence[Figure], options: argparse.Namespace) -> None:
    """Print the figures, and append them to results/NAME.jsonl unless --quick."""
    machine = describe()
    stamp = {"machine": f"{machine.cpu}, {machine.cores} cores", "commit": _commit(), "when": _now()}
    for figure in figures:
        line = json.dumps(figure.model_dump())
        interval = (
            f" [{figure.low:.4g}, {figure.high:.4g}]" if figure.low is not None and figure.high is not None else ""
        )
        told = f"{figure.figure}: {figure.value:.4g}{interval} {figure.unit} {figure.conditions}"
        print(line if options.json else told, flush=True)
    if options.quick:
        return
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        for figure in figures:
            file.write(json.dumps({**figure.model_dump(), **stamp}) + "\n")


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
