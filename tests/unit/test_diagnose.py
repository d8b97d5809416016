"""What `edgekit explain` finds in a file: against a small fixed model, word for word, and on a real runtime."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import tiny_onnx
from click.testing import CliRunner

from edgekit.advice import Traits, advice, lacks
from edgekit.artifact import Artifact
from edgekit.cli.explain import command, show
from edgekit.diagnose import diagnose, measure_profile
from edgekit.formats.anatomy import pieces
from edgekit.formats.onnx_quantize import quantize_onnx
from edgekit.machine import Machine
from edgekit.runtimes.profile import NodeTime, Profile

GOLDEN = Path(__file__).parents[1] / "golden" / "explain.txt"
MACHINE = Machine(
    cpu="a processor",
    arch="x86_64",
    cores=2,
    logical_cores=2,
    memory_bytes=1 << 30,
    isa=("avx2", "fma", "avx512f"),
    system="Linux",
    python="3.11",
    libraries={},
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Artifact]:
    """A fixed float file, and one with its products in int8."""
    folder = tmp_path_factory.mktemp("files")
    plain = tiny_onnx.make(folder / "plain", extra=2)
    manifest = {"stage": "quantize", "config": {"method": "int8-dynamic", "embeddings": "int8"}}
    small = tiny_onnx.make(folder / "small", extra=2, manifest=manifest)
    model = onnx.load(str(plain.model_file))
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.save(model, str(plain.model_file))
    quantize_onnx(plain.model_file, small.model_file, "int8-dynamic", exclude=["plain"])
    return plain, small


def profile(*times: tuple[str, float]) -> Profile:
    nodes = tuple(NodeTime(name=f"{name} {at}", operator=name, ms=ms) for at, (name, ms) in enumerate(times))
    return Profile(nodes=nodes, wall_ms=0.25)


def test_the_text_word_for_word(files: tuple[Artifact, Artifact], capsys: pytest.CaptureFixture[str]) -> None:
    plain, small = files
    told = diagnose(
        small,
        MACHINE,
        profile=profile(("DynamicQuantizeMatMul", 0.06), ("DynamicQuantizeMatMul", 0.04), ("Sigmoid", 0.05)),
        parent=plain,
        parent_profile=profile(("MatMul", 0.125), ("Sigmoid", 0.0625)),
        shape=(1, 8, 2),
    )
    show(told)
    assert capsys.readouterr().out == GOLDEN.read_text(encoding="utf-8")


def test_every_byte_is_accounted_for(files: tuple[Artifact, Artifact]) -> None:
    for artifact in files:
        found = pieces(artifact.model_file)
        assert sum(piece.bytes for piece in found) == artifact.model_file.stat().st_size
        assert min(piece.bytes for piece in found) > 0


def test_times_come_from_the_runtimes_own_profile(files: tuple[Artifact, Artifact]) -> None:
    found = measure_profile(files[1], 1, 8, 1)
    assert found is not None
    assert {"DynamicQuantizeMatMul", "Sigmoid"} <= {node.operator for node in found.nodes}
    assert sum(node.ms for node in found.nodes) > 0


def test_the_command_prints_json(files: tuple[Artifact, Artifact]) -> None:
    plain, small = (str(artifact.path) for artifact in files)
    done = CliRunner().invoke(command, [small, "--parent", plain, "--no-profile", "--json"])
    told = json.loads(done.stdout)
    assert (told["file"], told["parent"], told["operators"]) == ("small", "plain", [])
    assert [layer["name"] for layer in told["in_float"]] == ["rows", "plain"]


@pytest.mark.parametrize(
    ("precision", "times", "word"),
    [
        (
            "int8-static",
            {"QuantizeLinear": 1.0, "DequantizeLinear": 1.0, "MatMul": 3.0},
            "QuantizeLinear and Dequantize",
        ),
        ("int8-dynamic", {"DynamicQuantizeLinear": 1.0, "MatMulInteger": 3.0}, "int8-static"),
        ("f32", {"Softmax": 1.0, "MatMul": 9.0}, "attention is not one operator"),
        ("int4-weight-only", {"MatMulNBits": 9.0, "Add": 1.0}, "int8-dynamic for speed"),
        ("int8-dynamic", {"DynamicQuantizeMatMul": 1.0}, "cost about what float ones do"),
    ],
)
def test_each_cause_has_its_advice(precision: str, times: dict[str, float], word: str) -> None:
    traits = Traits("onnx", precision, {("matrices", "i8"): 100}, times, sum(times.values()))
    assert any(word in text for text in advice(traits, MACHINE))


def test_what_a_processor_lacks_is_told_by_its_kind() -> None:
    assert [text.split(":")[0] for text in lacks(MACHINE)] == ["VNNI", "AMX"]
    arm = MACHINE.model_copy(update={"isa": ("asimd", "asimddp")})
    assert [text.split(":")[0] for text in lacks(arm)] == ["i8mm"]
    assert lacks(MACHINE.model_copy(update={"isa": ()})) == ()
