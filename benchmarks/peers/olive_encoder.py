"""Olive in an environment of its own: python olive_encoder.py FOLDER TEXTS.json OUT KIND writes OUT/model.onnx.

KIND: int8, int4 (`olive auto-opt` of that precision for a CPU, which takes no texts), optimize-int8 (`olive optimize`,
that command's successor) or static (its passes of that name, calibrated on the texts). All else by Olive's defaults.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from olive import run
from olive.data.registry import Registry
from transformers import AutoTokenizer

COMMANDS = {"int8": ["auto-opt"], "int4": ["auto-opt"], "optimize-int8": ["optimize", "--exporter", "dynamo_exporter"]}
TASK = "text-classification"


def calibration_texts(folder: str, texts: str, **_: Any) -> list[tuple[dict[str, Any], int]]:
    """Token ids of each text; its label is not asked for."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = json.loads(Path(texts).read_text(encoding="utf-8"))
    encoded = [tokenizer(row, truncation=True, return_tensors="np") for row in rows]
    return [({name: ids[0] for name, ids in row.items()}, 0) for row in encoded]


def static(folder: str, texts: str, out: Path) -> None:
    """The passes of `auto-opt`, with the calibrated one in the place of the dynamic."""
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
        }
    )


folder, texts, out, kind = sys.argv[1:]
work = Path(out) / "work"
work.mkdir(parents=True)
if kind == "static":
    static(folder, texts, work)
else:
    command = [sys.executable, "-m", "olive", *COMMANDS[kind], "-m", folder, "-t", TASK, "-o", str(work)]
    command += ["--device", "cpu", "--provider", "CPUExecutionProvider", "--precision", kind.rpartition("-")[2]]
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit(f"olive {COMMANDS[kind][0]} failed")
made = sorted(work.rglob("*.onnx"))
if len(made) != 1:
    sys.exit(f"{len(made)} ONNX files were made")
for file in made[0].parent.iterdir():
    if file.is_file():  # weights may lie beside it, under a name that it knows them by
        file.replace(Path(out) / ("model.onnx" if file == made[0] else file.name))
