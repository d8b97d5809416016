"""Olive in an environment of its own: python olive_encoder.py FOLDER TEXTS.json OUT KIND writes OUT/model.onnx.

KIND: int8, int4 (`olive auto-opt` of that precision for a CPU, which takes no texts) or static (its passes, with the
calibrated one in the place of the dynamic, on the texts). All else by Olive's defaults. The command's successor, `olive
optimize`, exports no classifier by its default builder, and calibrates int8 on texts of a hub and on CUDA.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from olive import run
from olive.data.registry import Registry
from transformers import AutoTokenizer

TASK = "text-classification"


def calibration_texts(folder: str, texts: str, **_: Any) -> list[tuple[dict[str, Any], int]]:
    """Token ids of each text; its label is not asked for."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = json.loads(Path(texts).read_text(encoding="utf-8"))
    encoded = [tokenizer(row, truncation=True, return_tensors="np") for row in rows]
    return [({name: ids[0] for name, ids in row.items()}, 0) for row in encoded]


def static(folder: str, texts: str, out: Path) -> None:
    """Write what the calibrated pass makes below `out`."""
    Registry.register_dataset()(calibration_texts)
    load = {"type": "calibration_texts", "folder": folder, "texts": texts}
    run(
        {
            "input_model": {"type": "HfModel", "model_path": folder, "task": TASK},
            "data_configs": [{"name": "texts", "type": "DataContainer", "load_dataset_config": load}],
            "passes": {
                "conversion": {"type": "OnnxConversion"},
                "peephole": {"type": "OnnxPeepholeOptimizer"},
                "transformers": {"type": "OrtTransformersOptimization", "opt_level": 0},
                "static": {"type": "OnnxStaticQuantization", "data_config": "texts"},
            },
            "output_dir": str(out),
            "cache_dir": str(out.with_name("cache")),
        }
    )


folder, texts, out, kind = sys.argv[1:]
work, cache = Path(out) / "work", Path(out) / "cache"
work.mkdir(parents=True)
cache.mkdir()
if kind == "static":
    static(folder, texts, work)
else:
    command = [sys.executable, "-m", "olive", "auto-opt", "-m", folder, "-t", TASK, "-o", str(work)]
    command += ["--device", "cpu", "--provider", "CPUExecutionProvider", "--precision", kind]
    done = subprocess.run(command, check=False, cwd=cache)  # it keeps what it made where it is run
    if done.returncode != 0:
        sys.exit(done.returncode)
made = sorted(work.rglob("*.onnx"))
if len(made) != 1:
    sys.exit(f"{len(made)} ONNX files were made")
for file in made[0].parent.iterdir():
    if file.is_file():  # weights may lie beside it, under a name that it knows them by
        file.replace(Path(out) / ("model.onnx" if file == made[0] else file.name))
shutil.rmtree(cache)
