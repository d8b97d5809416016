"""report.json, schema 1: what a run made, how it measures, and what the gate says. Frozen, unknown keys refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, ValidationError

from edgekit.artifact import Facts, Frozen, Task
from edgekit.correctness import Correctness
from edgekit.errors import Problem, UsageError
from edgekit.jobs import Fidelity
from edgekit.machine import Machine
from edgekit.sequential import Verdict
from edgekit.statistics import Chance, Drop, Interval

__all__ = [
    "BaselineEntry",
    "Conditions",
    "Control",
    "Deployable",
    "Gate",
    "Instructions",
    "Latency",
    "LengthSummary",
    "Report",
    "RoundRatio",
    "RuleEntry",
    "RuntimeInfo",
    "Speed",
    "Speedup",
    "StepEntry",
    "Throughput",
    "dump",
    "load_report",
]

SCHEMA = 1
DeployableFormat = Literal["onnx", "gguf", "hf", "onnx-genai", "onnx-seq2seq", "openvino"]


class Latency(Frozen):
    """Milliseconds of one inference (one batch), tokenization left out; `n` samples. Intervals are 95%, over rounds."""

    p50: float
    p90: float
    p99: float
    n: int
    p50_interval: tuple[float, float] | None = None
    p90_interval: tuple[float, float] | None = None
    p99_interval: tuple[float, float] | None = None


class RoundRatio(Frozen):
    """Time of a file / time of the baseline in one round (above 1: slower): wall time at three percentiles, CPU time
    (None where its clock is too coarse), and how many pairs of inferences that is from."""

    p50: float
    p90: float
    p99: float
    cpu: float | None
    pairs: int


class Instructions(Frozen):
    """Instructions of one inference on one thread, counted by an emulator: median, and (largest - least) / median of
    `n` inferences of different examples."""

    median: float
    spread: float
    n: int


class Speedup(Interval):
    """Time of `against` / time of this one, interleaved: above 1 is faster. Median over rounds, 95% interval."""

    against: str


class Control(Interval):
    """The A/A control: the baseline timed against itself in the same rounds. 1 within noise on a machine to trust."""

    rounds: tuple[RoundRatio, ...] = ()


class Speed(Frozen):
    """A language model's speed: tokens per second, and milliseconds to the first token of a prompt (without loading).

    `decode_bytes`: of weights that one step reads; `bandwidth_share`: those bytes per second over what the machine's
    memory gave in the same minutes (above 1: they come from a cache). `encoder_ms`: of a text-to-text model, the
    reading of a text; its first token takes that and a step.
    """

    decode_per_second: Interval
    prefill_per_second: Interval
    ttft_ms: Interval
    decode_bytes: int
    bandwidth_share: float
    encoder_ms: Latency | None = None


class Throughput(Frozen):
    """Examples per second when they come in batches of `batch`, padded to the longest; 95% interval over rounds."""

    batch: int
    per_second: float
    interval: tuple[float, float] | None = None


class RuntimeInfo(Frozen):
    """What executed the file."""

    name: str
    version: str
    providers: tuple[str, ...] = ()


class LengthSummary(Frozen):
    """Tokens per example."""

    min: int
    p50: float
    p90: float
    max: int


class Conditions(Frozen):
    """What was fed, and how. `n`: examples of the accuracy; `items`: examples that were timed."""

    data: str
    n: int
    items: int
    batch: int
    threads: int
    rounds: int
    length: int | None = None
    tokens: LengthSummary | None = None
    target: str = "cpu"
    transport: str = "local"
    fidelity: Fidelity = "measured"


class StepEntry(Frozen):
    """One step: what it did to the model. `artifact` is the full key; `metrics` are of its output, in torch.

    `parents`: ids of the steps it read, first the one whose model it changed, then others (a teacher); an id that no
    step has is the source. Empty where not known.
    """

    id: str
    stage: str
    artifact: str
    cached: bool
    seconds: float
    size_bytes: int
    facts: Facts
    metrics: dict[str, float | None] = Field(default_factory=dict)
    parents: tuple[str, ...] = ()


class BaselineEntry(Frozen):
    """What everything is compared with: a file in its runtime, like the deployables. `artifact`: digest of its
    files; `correctness`: which examples it answers right, where the data have labels."""

    id: str
    format: DeployableFormat
    path: str
    size_bytes: int
    metrics: dict[str, float | None] = Field(default_factory=dict)
    latency_ms: Latency | None = None
    throughput: tuple[Throughput, ...] = ()
    speed: Speed | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    peak_rss_bytes: int | None = None
    instructions: Instructions | None = None
    runtime: RuntimeInfo | None = None
    precision: str = ""
    notes: tuple[str, ...] = ()
    artifact: str = ""
    correctness: Correctness | None = None


class Deployable(BaselineEntry):
    """A file that ships. `accuracy_drop` is paired with the baseline's; `rounds`: its times over the baseline's, by
    which a gate decides; `lineage`: the ids of the steps behind it."""

    accuracy_drop: Drop | None = None
    speedup: Speedup | None = None
    rounds: tuple[RoundRatio, ...] = ()
    lineage: tuple[str, ...] = ()


class RuleEntry(Frozen):
    """One rule judged. `passed`: whether the gate lets it through, which it may where the verdict is "inconclusive".

    `value` and `limit` in base units (ms, bytes, fractions, examples per second, ratios), or where `relative` as ratios
    to the baseline's; None where there is none, which fails. `interval`: of the value. `deployable`: which decided.
    """

    rule: str
    value: float | None
    limit: float | None
    verdict: Verdict
    passed: bool
    deployable: str = ""
    sentence: str = ""
    relative: bool = False
    interval: tuple[float, float] | None = None


class Gate(Frozen):
    """The verdict: "fail" where something failed, else "inconclusive" where something is undecided that may not be.
    `reasons` holds what failed it besides the rules, `warnings` what to know about it."""

    verdict: Verdict
    rules: tuple[RuleEntry, ...] = ()
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.verdict == "pass"


class Report(Frozen):
    """report.json. `interrupted`: measuring was stopped; what there is of it is judged."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_version: Literal[1] = Field(default=1, alias="schema")
    recipe: str
    machine: Machine
    seconds: float
    steps: tuple[StepEntry, ...] = ()
    deployables: tuple[Deployable, ...] = ()
    gate: Gate | None = None
    baseline: BaselineEntry | None = None
    baseline_check: Chance | None = None
    control: Control | None = None
    conditions: Conditions | None = None
    task: Task | None = None
    notes: tuple[str, ...] = ()
    interrupted: bool = False


def dump(report: Report) -> str:
    """The report as JSON text. A number that is not finite becomes null, which a gate takes as missing."""
    return report.model_dump_json(by_alias=True, indent=2) + "\n"


def load_report(path: Path) -> Report:
    """Read a report.json. Raises UsageError where it is missing, is not JSON, or has another schema."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})", hint="give a report.json") from None
    except ValueError as error:
        raise UsageError(f"{path}: not JSON ({error})", hint="give a report.json written by edgekit") from None
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        found = raw.get("schema") if isinstance(raw, dict) else None
        hint = "give a report.json written by edgekit" if found is None else "write it anew with this edgekit"
        raise UsageError(f"{path}: not a report of schema {SCHEMA} (its schema: {found})", hint=hint)
    try:
        return Report.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        problems = tuple(Problem(".".join(str(at) for at in e["loc"]), e["msg"]) for e in error.errors())
        raise UsageError(f"{path}: not a report of schema {SCHEMA}", problems=problems) from None
