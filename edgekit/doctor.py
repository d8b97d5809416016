"""What this machine can do: libraries, devices, targets, instruction sets, room."""

from __future__ import annotations

import shutil
from importlib.metadata import PackageNotFoundError, version

from edgekit.artifact import Frozen
from edgekit.errors import Problem
from edgekit.machine import describe
from edgekit.runtimes import CUDA
from edgekit.store import default_root
from edgekit.targets import BUILT_IN, Entry, missing

__all__ = ["Check", "examine"]

LIBRARIES = {
    "torch": ("training and the reference", "pip install torch"),
    "transformers": ("models", "pip install edgekit"),
    "onnxruntime": ("ONNX runtime", "pip install edgekit"),
    "llama-cpp-python": ("GGUF runtime", "pip install 'edgekit[gguf]'"),
    "gguf": ("GGUF export", "pip install 'edgekit[gguf]'"),
    "openvino": ("OpenVINO runtime", "pip install 'edgekit[openvino]'"),
    "nncf": ("int8 for OpenVINO", "pip install 'edgekit[openvino]'"),
    "datasets": ("hub data sets", "pip install 'edgekit[hub]'"),
    "onnxruntime-genai": ("language models as ONNX", "pip install 'edgekit[genai]'"),
    "peft": ("LoRA and other adapters", "pip install 'edgekit[peft]'"),
    "lm-eval": ("tasks of lm-evaluation-harness", "pip install 'edgekit[lm-eval]'"),
    "auto-round": ("AWQ and AutoRound", "pip install 'edgekit[auto-round]'"),
    "neural-compressor": ("more int4 methods, as a peer", "pip install 'edgekit[neural-compressor]'"),
}
FAST_INT8 = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
ROOM = 2_000_000_000


class Check(Frozen):
    """One thing that was looked for."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


def examine() -> list[Check]:
    """All checks; nothing raises."""
    targets = (_target(name, entry) for name, entry in BUILT_IN.items())
    return [*(_library(name) for name in LIBRARIES), _cuda(), *_provider(), *targets, _int8(), _room()]


def _library(name: str) -> Check:
    purpose, remedy = LIBRARIES[name]
    try:
        return Check(name=f"{name} ({purpose})", ok=True, found=version(name))
    except PackageNotFoundError:
        return Check(name=f"{name} ({purpose})", ok=False, found="", remedy=remedy)


def _cuda() -> Check:
    try:
        import torch
    except ImportError:
        return Check(name="CUDA", ok=False, found="", remedy="pip install torch")
    ok = torch.cuda.is_available()
    found = torch.cuda.get_device_name(0) if ok else "no CUDA device: training runs on the CPU"
    return Check(name="CUDA", ok=ok, found=found, remedy="a machine with an NVIDIA GPU")


def _provider() -> list[Check]:
    """Whether ONNX Runtime can use the GPU, where there is the driver of one."""
    name = "CUDA provider (ONNX runtime on the GPU)"
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        from onnxruntime import get_available_providers
    except ImportError:
        return [Check(name=name, ok=False, found="", remedy=CUDA["onnx"].install)]
    found = get_available_providers()
    ok = "CUDAExecutionProvider" in found
    return [Check(name=name, ok=ok, found=", ".join(found), remedy=CUDA["onnx"].install)]


def _target(name: str, entry: Entry) -> Check:
    problems = missing(entry)
    found = "; ".join(str(Problem(problem.where, problem.what)) for problem in problems) or "ready"
    remedy = "; ".join(dict.fromkeys(problem.hint for problem in problems))
    return Check(name=f"target {name}", ok=not problems, found=found, remedy=remedy)


def _int8() -> Check:
    isa = describe().isa
    fast = [name for name in FAST_INT8 if name in isa]
    found = ", ".join(fast) or "no int8 dot products: int8 files may be no faster here than fp32"
    return Check(name="int8 instructions", ok=bool(fast), found=found, remedy="a newer core")


def _room() -> Check:
    root = default_root()
    existing = next(p for p in (root, *root.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    return Check(
        name="room for the store",
        ok=free > ROOM,
        found=f"{free / 1e9:.0f} GB free",
        remedy="edgekit store gc, or --store",
    )
