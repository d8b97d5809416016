"""A report like one of the text-classifier recipe, written by hand: what the renderers' tests are made from."""

from __future__ import annotations

from edgekit.artifact import Facts, Skipped
from edgekit.machine import Machine
from edgekit.report.schema import (
    BaselineEntry,
    Conditions,
    Control,
    Deployable,
    Gate,
    Latency,
    LengthSummary,
    Report,
    RuleEntry,
    RuntimeInfo,
    Speedup,
    StepEntry,
    Throughput,
)
from edgekit.statistics import Chance, Drop

MACHINE = Machine(
    cpu="AMD EPYC 7B13",
    arch="x86_64",
    cores=2,
    logical_cores=4,
    memory_bytes=16_777_216_000,
    isa=("avx2", "fma", "f16c"),
    system="Linux 6.1.0",
    python="3.11.9",
    libraries={"edgekit": "0.1.0", "onnxruntime": "1.24.1", "llama-cpp-python": "0.3.36", "torch": "2.13.0"},
    load=(0.42, 0.38, 0.31),
)
ORT = RuntimeInfo(name="onnxruntime", version="1.24.1", providers=("CPUExecutionProvider",))
LLAMA = RuntimeInfo(name="llama.cpp", version="0.3.36")


def step(
    name: str, stage: str, size: int, accuracy: float | None, facts: Facts, parents: tuple[str, ...], seconds: float
) -> StepEntry:
    metrics: dict[str, float | None] = {} if accuracy is None else {"accuracy": accuracy, "macro_f1": accuracy - 0.004}
    return StepEntry(
        id=name,
        stage=stage,
        artifact=(name.encode().hex() * 64)[:64],
        cached=stage == "finetune",
        seconds=seconds,
        size_bytes=size,
        facts=facts,
        metrics=metrics,
        parents=parents,
    )


def steps() -> tuple[StepEntry, ...]:
    heads = tuple(f"encoder.layer.{n}.attention" for n in range(3))
    layers = tuple(f"encoder.layer.{n}.{part}" for n in range(3) for part in ("query", "key", "intermediate"))
    return (
        step(
            "teacher",
            "finetune",
            90_868_376,
            0.929,
            Facts(summary="6 epochs, best at epoch 5", numbers={"epochs": 6, "best_validation_accuracy": 0.931}),
            ("model",),
            141.2,
        ),
        step("teacher-onnx", "export", 91_006_486, None, Facts(summary="ONNX, fp32, 41 fusions"), ("teacher",), 9.4),
        step("start", "student", 48_310_000, 0.412, Facts(summary="layers 0, 2 and 5 of 6 kept"), ("teacher",), 0.6),
        step(
            "distill",
            "distill",
            48_310_000,
            0.931,
            Facts(
                summary="6 epochs; soft targets at T=3, hidden states and attention relations",
                touched=heads,
                numbers={"parameters": 12_077_500, "temperature": 3.0},
            ),
            ("start", "teacher"),
            93.1,
        ),
        step(
            "vocabulary",
            "prune",
            22_140_000,
            0.929,
            Facts(
                summary="vocabulary: 13,482 of 30,522 tokens kept",
                warnings=("a word outside the kept vocabulary is split into smaller pieces",),
                numbers={"kept_tokens": 13_482},
            ),
            ("distill",),
            4.2,
        ),
        step(
            "ffn",
            "prune",
            15_060_000,
            0.926,
            Facts(
                summary="half of each FFN by Taylor importance, rounded to 64; 4 of 12 heads",
                touched=layers,
                skipped=tuple(Skipped(name=n, reason="fewer than two heads would be left") for n in heads[:1]),
            ),
            ("vocabulary",),
            12.8,
        ),
        step(
            "factorize",
            "factorize",
            13_210_000,
            0.924,
            Facts(
                summary="truncated SVD, activation-aware, rank by 90% of the energy",
                touched=layers[:4],
                skipped=tuple(Skipped(name=n, reason="would not shrink at this rank") for n in layers[4:]),
            ),
            ("ffn",),
            7.5,
        ),
        step("onnx", "export", 13_300_000, None, Facts(summary="ONNX, fp32, parity 2.1e-06"), ("factorize",), 5.1),
        step(
            "int8",
            "quantize",
            3_720_000,
            None,
            Facts(
                summary="int8 dynamic, per channel, embeddings included",
                skipped=(Skipped(name="classifier", reason="excluded"),),
            ),
            ("onnx",),
            3.3,
        ),
        step("gguf", "export", 6_690_000, None, Facts(summary="GGUF f16 with its head"), ("factorize",), 2.2),
        step("q8", "quantize", 3_980_000, None, Facts(summary="Q8_0"), ("gguf",), 1.1),
    )


def deployable(
    name: str,
    size: int,
    precision: str,
    accuracy: float,
    drop: Drop | None,
    latency: Latency | None,
    speedup: Speedup | None,
) -> Deployable:
    gguf = name in ("gguf", "q8")
    return Deployable(
        id=name,
        format="gguf" if gguf else "onnx",
        path=name,
        size_bytes=size,
        metrics={"accuracy": accuracy, "macro_f1": accuracy - 0.003, "agreement": 0.974},
        latency_ms=latency,
        throughput=(Throughput(batch=32, per_second=1000 * 4 / latency.p50),) if latency else (),
        load_ms=38.0,
        first_ms=2.9,
        peak_rss_bytes=64_000_000,
        runtime=LLAMA if gguf else ORT,
        precision=precision,
        accuracy_drop=drop,
        speedup=speedup,
        lineage=("teacher", "start", "distill", "vocabulary", "ffn", "factorize", "gguf" if gguf else "onnx", name),
    )


def passed(
    rule: str,
    value: float,
    limit: float,
    name: str,
    *,
    relative: bool = False,
    interval: tuple[float, float] | None = None,
) -> RuleEntry:
    return RuleEntry(
        rule=rule,
        value=value,
        limit=limit,
        verdict="pass",
        passed=True,
        deployable=name,
        sentence=f"{name}: {rule}: holds",
        relative=relative,
        interval=interval,
    )


def sample() -> Report:
    """A run that passed: the teacher, three deployables of its student, two formats."""
    return Report(
        recipe="text-classifier",
        machine=MACHINE,
        seconds=284.6,
        steps=steps(),
        baseline=BaselineEntry(
            id="teacher-onnx",
            format="onnx",
            path="teacher-onnx",
            size_bytes=91_006_486,
            metrics={"accuracy": 0.929, "macro_f1": 0.927},
            latency_ms=Latency(p50=5.12, p90=5.61, p99=6.94, n=2400),
            throughput=(Throughput(batch=32, per_second=412),),
            peak_rss_bytes=268_000_000,
            runtime=ORT,
            precision="fp32",
        ),
        deployables=(
            deployable(
                "int8",
                3_720_000,
                "int8",
                0.925,
                Drop(value=0.004, low=-0.002, high=0.011, p_value=0.29),
                Latency(p50=0.814, p90=0.91, p99=1.22, n=2400, p50_interval=(0.806, 0.823)),
                Speedup(value=6.3, low=5.9, high=6.8, against="teacher-onnx"),
            ),
            deployable(
                "onnx",
                13_300_000,
                "fp32",
                0.926,
                Drop(value=0.003, low=-0.003, high=0.009, p_value=0.41),
                Latency(p50=1.22, p90=1.34, p99=1.71, n=2400),
                Speedup(value=4.2, low=3.9, high=4.4, against="teacher-onnx"),
            ),
            deployable(
                "q8",
                3_980_000,
                "Q8_0",
                0.924,
                Drop(value=0.005, low=-0.001, high=0.012, p_value=0.18),
                Latency(p50=1.31, p90=1.52, p99=2.07, n=2400),
                Speedup(value=3.9, low=3.6, high=4.2, against="teacher-onnx"),
            ),
        ),
        gate=Gate(
            verdict="pass",
            rules=(
                passed("accuracy_drop <= 1pt", 0.005, 0.01, "q8"),
                passed("speedup >= 5x on any", 6.3, 5.0, "int8"),
                passed("size <= 15MB", 13_300_000.0, 15e6, "onnx"),
                passed("latency.p99 <= 0.5x baseline", 0.298, 0.5, "q8", relative=True, interval=(0.291, 0.307)),
            ),
        ),
        baseline_check=Chance(accuracy=0.929, majority_share=0.021, p_value=0.0, at_chance=False),
        control=Control(value=1.002, low=0.984, high=1.019),
        conditions=Conditions(
            data="test.csv",
            n=1542,
            items=200,
            batch=1,
            threads=2,
            rounds=12,
            tokens=LengthSummary(min=3, p50=9, p90=16, max=31),
        ),
        notes=("This processor has no int8 dot product (VNNI): int8 gains less here than on a newer one.",),
    )


if __name__ == "__main__":  # write the golden files anew, after looking at the change
    from pathlib import Path

    from edgekit.report import render_markdown
    from edgekit.report.schema import dump

    golden = Path(__file__).parents[2] / "golden"
    (golden / "report.md").write_text(render_markdown(sample()), encoding="utf-8")
    (golden / "report.json").write_text(dump(sample()), encoding="utf-8")
