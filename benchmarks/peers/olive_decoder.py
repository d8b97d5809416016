"""Olive in an environment of its own: python olive_decoder.py FOLDER WINDOWS.npy OUT KIND writes a folder OUT for
onnxruntime-genai, of int4.

KIND: builder (its ModelBuilder pass as `olive optimize --precision int4` sets it) or gptq (that command's whole way:
its Gptq pass comes first, here with WINDOWS, token ids (windows, length), to calibrate on: its own texts are on a hub).
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from olive import run
from olive.data.registry import Registry

BUILDER = {
    "type": "ModelBuilder",
    "precision": "int4",
    "int4_block_size": 32,
    "int4_accuracy_level": 4,
    "int4_op_types_to_quantize": ["MatMul", "Gather"],
}


def calibration_windows(file: str, **_: Any) -> list[tuple[dict[str, torch.Tensor], int]]:
    """Each window whole."""
    ids = torch.from_numpy(np.load(file)).long()
    return [({"input_ids": row, "attention_mask": torch.ones_like(row)}, 0) for row in ids]


folder, windows, out, kind = sys.argv[1:]
work, cache = Path(out) / "work", Path(out) / "cache"
Registry.register_dataset()(calibration_windows)
load = {"type": "calibration_windows", "file": windows}
gptq = {"gptq": {"type": "Gptq", "bits": 4, "sym": True, "data_config": "windows"}} if kind == "gptq" else {}
run(
    {
        "input_model": {"type": "HfModel", "model_path": folder, "task": "text-generation"},
        "data_configs": [{"name": "windows", "type": "DataContainer", "load_dataset_config": load}],
        "passes": {**gptq, "builder": BUILDER},
        "output_dir": str(work),
        "cache_dir": str(cache),
    }
)
[config] = work.rglob("genai_config.json")
for path in config.parent.iterdir():
    path.replace(Path(out) / path.name)
for path in (work, cache):
    shutil.rmtree(path)
