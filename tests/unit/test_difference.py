"""Two reports explained: what changed, what can be said of it, what cannot."""

from __future__ import annotations

from typing import Any

import pytest
import report_sample

from edgekit.correctness import Correctness
from edgekit.difference import difference
from edgekit.report.schema import Latency, Report, RuntimeInfo


def int8_lines(before: Report, after: Report) -> str:
    return "\n".join(next(file.lines for file in difference(before, after).files if file.id == "int8"))


def with_int8(**changes: Any) -> Report:
    whole = report_sample.sample()
    first = whole.deployables[0].model_copy(update=changes)
    return whole.model_copy(update={"deployables": (first, *whole.deployables[1:])})


def latency(p50: float, *, known: bool = True) -> Latency:
    return Latency(p50=p50, p90=1, p99=1, n=9, p50_interval=(p50 * 0.99, p50 * 1.01) if known else None)


def test_a_report_does_not_differ_from_itself() -> None:
    found = difference(report_sample.sample(), report_sample.sample())
    assert (found.context, found.steps) == ((), ())
    words = {line.split(" ")[0] for file in found.files for line in file.lines}
    assert words <= {"latency", "accuracy"}  # which say what cannot be said


def test_size_and_artifact() -> None:
    told = int8_lines(with_int8(artifact="a" * 64), with_int8(artifact="b" * 64, size_bytes=4_092_000))
    assert f"another file: {'a' * 12} -> {'b' * 12}" in told
    assert "size 3.72MB -> 4.092MB (+10.0%)" in told
    assert "the same file" in int8_lines(with_int8(artifact="a" * 64), with_int8(artifact="a" * 64))


def test_accuracy_is_paired_where_the_answers_are_known() -> None:
    def answered(wrong: int, data: str = "d") -> Report:
        flags = [at >= wrong for at in range(1000)]
        return with_int8(correctness=Correctness.pack(flags, data), metrics={"accuracy": 1 - wrong / 1000})

    told = int8_lines(answered(50), answered(90))
    assert "accuracy 95.00% -> 91.00%" in told
    assert "accuracy, paired: -4.00pt" in told
    assert "beyond chance" in told
    assert "no difference is shown" in int8_lines(answered(50), answered(52))
    assert "cannot be paired" in int8_lines(answered(50), answered(50, "other"))


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (latency(1.0), latency(1.1), "1ms -> 1.1ms (1.100x): the intervals are apart"),
        (latency(1.0), latency(1.01), "the intervals overlap"),
        (latency(1.0, known=False), latency(1.1), "without intervals"),
    ],
)
def test_latency_says_what_it_can(before: Latency, after: Latency, words: str) -> None:
    assert words in int8_lines(with_int8(latency_ms=before), with_int8(latency_ms=after))


@pytest.mark.parametrize(
    ("field", "change", "words"),
    [
        ("machine", {"cpu": "another"}, "machine cpu: AMD EPYC 7B13 -> another"),
        ("conditions", {"threads": 4}, "threads: 2 -> 4"),
        ("conditions", {"transport": "ssh"}, "transport: local -> ssh"),
    ],
)
def test_times_of_another_machine_or_workload_are_not_compared(field: str, change: dict[str, Any], words: str) -> None:
    here = with_int8(latency_ms=latency(1.0))
    there = here.model_copy(update={field: getattr(here, field).model_copy(update=change)})
    found = difference(here, there)
    assert words in found.context
    assert "measure the two side by side" in int8_lines(here, there)


def test_libraries_runtimes_and_steps_are_told() -> None:
    here = report_sample.sample()
    libraries = {**here.machine.libraries, "onnxruntime": "1.25.0"}
    runtime = RuntimeInfo(name="onnxruntime", version="1.25.0", providers=("CPUExecutionProvider",))
    there = with_int8(runtime=runtime).model_copy(
        update={"machine": here.machine.model_copy(update={"libraries": libraries})}
    )
    facts = here.steps[0].facts.model_copy(update={"numbers": {"epochs": 7}})
    first = here.steps[0].model_copy(update={"artifact": "f" * 64, "facts": facts})
    there = there.model_copy(update={"steps": (first, *here.steps[2:])})
    found = difference(here, there)
    assert "library onnxruntime: 1.24.1 -> 1.25.0" in found.context
    assert "runtime onnxruntime 1.24.1 -> onnxruntime 1.25.0" in int8_lines(here, there)
    assert "step teacher-onnx: only in the first" in found.steps
    assert "step teacher epochs: 6 -> 7" in found.steps
    assert "side by side" not in int8_lines(here, there)  # another library is what one wants to know about


def test_files_of_one_report_only() -> None:
    here = report_sample.sample()
    found = difference(here, here.model_copy(update={"deployables": here.deployables[1:]}))
    assert next(file.lines for file in found.files if file.id == "int8") == ("only in the first",)
