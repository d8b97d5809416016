"""optimum-onnx in an environment of its own: python optimum_encoder.py FOLDER TEXTS.json OUT KIND, for OUT/model.onnx.

KIND: O2, O3 (its optimization levels), avx512_vnni (its dynamic int8 for such processors), O3-avx512_vnni (that of the
optimized file), or static (its static int8 for them, ranges by min and max of the texts). All else by its defaults.
"""

import json
import sys
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationMethod
from optimum.onnxruntime import (
    AutoOptimizationConfig,
    AutoQuantizationConfig,
    ORTModelForSequenceClassification,
    ORTOptimizer,
    ORTQuantizer,
)
from optimum.onnxruntime.configuration import CalibrationConfig
from transformers import AutoTokenizer

folder, texts, out, kind = sys.argv[1:]
target = Path(out)
work = target / "work"
model = ORTModelForSequenceClassification.from_pretrained(folder, export=True)
model.save_pretrained(work)
if "O" in kind:
    level = getattr(AutoOptimizationConfig, kind.split("-")[0])()
    ORTOptimizer.from_pretrained(model).optimize(optimization_config=level, save_dir=work, file_suffix="")
made = work
if kind not in ("O2", "O3"):
    made = target / "quantized"
    quantizer = ORTQuantizer.from_pretrained(work, file_name="model.onnx")
    config = AutoQuantizationConfig.avx512_vnni(is_static=kind == "static", per_channel=True)
    ranges = None
    if kind == "static":
        tokenizer = AutoTokenizer.from_pretrained(folder)
        names = set(model.input_names)
        encoded = [tokenizer(text, truncation=True) for text in json.loads(Path(texts).read_text(encoding="utf-8"))]
        rows = [{name: np.asarray(ids) for name, ids in row.items() if name in names} for row in encoded]
        ranges = quantizer.fit(
            dataset=rows,
            calibration_config=CalibrationConfig("texts", "", "train", len(rows), CalibrationMethod.MinMax),
            onnx_augmented_model_name=str(work / "augmented.onnx"),
            operators_to_quantize=config.operators_to_quantize,
        )
    quantizer.quantize(save_dir=made, quantization_config=config, calibration_tensors_range=ranges, file_suffix="")
(made / "model.onnx").replace(target / "model.onnx")
