"""What to try where a file is slow or large: options of edgekit, from its bytes, its times and the processor."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from edgekit.machine import Machine

__all__ = ["Traits", "advice", "lacks"]

INT8 = ("int8-dynamic", "int8-static", "int8-nncf")
WEIGHT_ONLY = ("int8-weight-only", "int4-weight-only")
FLOATS = ("f32", "f16", "bf16")
NOTABLE, IDLE, HALF = 0.1, 0.3, 0.5  # shares of bytes or time from which on a thing is worth a word
TABLE_OPTIONS = {"onnx": "--embeddings int8 or int4", "openvino": "--embeddings int8", "gguf": "--method q8_0"}
MATRIX_OPTIONS = {"onnx": "--method int8-dynamic", "openvino": "--method int8-nncf", "gguf": "--method q8_0"}
X86_WISHES = (
    (("avx512_vnni", "avx_vnni", "amx_int8"), "VNNI", "int8 products in one instruction; without it int8 gains little"),
    (("avx512f",), "AVX-512", "twice as wide float products"),
    (("amx_int8",), "AMX", "int8 products by tiles"),
)
ARM_WISHES = (
    (("asimddp",), "dotprod", "int8 products in one instruction; without it int8 gains little"),
    (("i8mm",), "i8mm", "int8 products by small tiles"),
)


@dataclass(frozen=True)
class Traits:
    """What advice depends on. `bytes_by`: of each kind and type of tensor (`formats.anatomy`); `time_by`: milliseconds
    of each operator as executed, empty where nothing was timed; `wall_ms`: of the whole inference."""

    format: str
    precision: str
    bytes_by: Mapping[tuple[str, str], int]
    time_by: Mapping[str, float]
    wall_ms: float = 0.0

    def bytes_of(self, kind: str, types: Collection[str] | None = None) -> int:
        return sum(n for (k, t), n in self.bytes_by.items() if k == kind and (types is None or t in types))

    def time_share(self, *operators: str) -> float:
        """Of the operators' time, what goes to those whose name begins with one of `operators`."""
        whole = sum(self.time_by.values())
        return sum(ms for name, ms in self.time_by.items() if name.startswith(operators)) / whole if whole else 0.0


def lacks(machine: Machine) -> tuple[str, ...]:
    """What the processor does not have that int8 or fp32 kernels would use; empty where it cannot be told."""
    if not machine.isa:
        return ()
    arm = any(name.startswith("asimd") for name in machine.isa)
    wanted = ARM_WISHES if arm else X86_WISHES
    return tuple(f"{label}: {use}" for names, label, use in wanted if not set(names) & set(machine.isa))


def advice(traits: Traits, machine: Machine) -> tuple[str, ...]:
    """What to try, the largest gain first, each a command or option of edgekit."""
    whole = sum(traits.bytes_by.values())
    found = _about_bytes(traits, whole) + (_about_time(traits, machine) if traits.time_by else [])
    return tuple(text for _, text in sorted(found, key=lambda item: -item[0])) or (
        "nothing stands out: fewer layers or narrower FFNs (edgekit prune) make everything less",
    )


def _about_bytes(traits: Traits, whole: int) -> list[tuple[float, str]]:
    found = []
    tables = traits.bytes_of("embedding tables", FLOATS)
    if tables > NOTABLE * whole:
        options = "--embeddings int8" if traits.format == "openvino" else "--embeddings int8 or int4"
        if traits.format == "gguf":
            options = "--method q8_0"
        found.append(
            (tables / whole, f"embedding tables are float, {tables / whole:.0%} of the file: quantize {options}")
        )
    tables = traits.bytes_of("embedding tables")
    if tables > HALF * whole:
        text = "most of the file is embedding tables: prune --vocabulary, or factorize --modules embedding"
        found.append((tables / whole, text))
    matrices = traits.bytes_of("matrices", FLOATS)
    if matrices > NOTABLE * whole:
        method = {"openvino": "int8-nncf", "gguf": "q8_0"}.get(traits.format, "int8-dynamic")
        found.append(
            (matrices / whole, f"matrices are float, {matrices / whole:.0%} of the file: quantize --method {method}")
        )
    return found


def _about_time(traits: Traits, machine: Machine) -> list[tuple[float, str]]:
    found = []
    if traits.precision in INT8 and (share := traits.time_share("QuantizeLinear", "DequantizeLinear")) > NOTABLE:
        text = f"QuantizeLinear and DequantizeLinear take {share:.0%} of the time: quantize --method int8-dynamic, or "
        found.append((share, text + "export --format openvino and quantize --method int8-nncf"))
    if (share := traits.time_share("DynamicQuantizeLinear")) > NOTABLE:
        found.append(
            (share, f"finding each activation's scale takes {share:.0%} of the time: quantize --method int8-static")
        )
    if traits.format == "onnx" and (share := traits.time_share("Softmax")) > 0:
        text = "attention is not one operator: export the model with edgekit export, which keeps it whole"
        found.append((share + NOTABLE, text))
    if traits.precision in WEIGHT_ONLY and (share := traits.time_share("MatMulNBits")) > HALF:
        found.append((share, f"MatMulNBits takes {share:.0%} of the time: quantize --method int8-dynamic for speed"))
    if traits.precision in INT8 and machine.isa and not machine.int8_dot:
        text = "int8 products cost about what float ones do here: gain speed by prune --keep-layers, --ffn"
        found.append((HALF, text))
    if traits.wall_ms and (idle := 1 - sum(traits.time_by.values()) / traits.wall_ms) > IDLE:
        text = (
            f"{idle:.0%} of an inference is not in any operator but between them: fewer layers (prune --keep-layers), "
        )
        found.append((idle, text + "one thread, or larger batches"))
    return found
