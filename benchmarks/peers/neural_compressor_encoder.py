"""neural-compressor in an environment of its own: python neural_compressor_encoder.py FOLDER TEXTS.json OUT KIND.

KIND: static (int8 by its defaults, calibrated on the texts) or dynamic. Its package neither reads nor writes ONNX any
more, and saves what it quantized for torch to compile: its graph of quantizing and dequantizing nodes is written by
torch's exporter, and folded by ONNX Runtime's basic optimizations, so that OUT/model.onnx holds int8.
"""

import json
import sys
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from neural_compressor.torch.export import export
from neural_compressor.torch.quantization import (
    convert,
    get_default_dynamic_config,
    get_default_static_config,
    prepare,
)
from transformers import AutoModelForSequenceClassification, AutoTokenizer

NAMES = ("input_ids", "attention_mask", "token_type_ids")


class Logits(torch.nn.Module):
    """The classifier, of three tensors (batch, length), with nothing but its logits."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        found: torch.Tensor = self.model(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).logits
        return found


def fed(tokenizer: Any, texts: list[str]) -> tuple[torch.Tensor, ...]:
    """The three tensors of some texts."""
    encoded = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    return tuple(encoded[name] for name in NAMES)


folder, texts, out, kind = sys.argv[1:]
rows = json.loads(Path(texts).read_text(encoding="utf-8"))
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
example = fed(tokenizer, rows[:2])
sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=512)}
shapes = dict.fromkeys(NAMES, sizes)
config = get_default_static_config() if kind == "static" else get_default_dynamic_config()
with torch.no_grad():
    prepared = prepare(export(Logits(model), example, dynamic_shapes=shapes), config)
    for row in rows:
        prepared(*fed(tokenizer, [row]))
    quantized = convert(prepared)
    whole = Path(out) / "whole.onnx"
    whole.parent.mkdir(parents=True)
    try:
        torch.onnx.export(
            quantized,
            example,
            whole,
            input_names=list(NAMES),
            output_names=["logits"],
            dynamic_shapes=shapes,
            dynamo=True,
            external_data=False,
        )
    except torch.onnx.OnnxExporterError as error:
        reason: BaseException = error
        while reason.__cause__ is not None:
            reason = reason.__cause__
        sys.exit(f"torch's exporter: {str(reason).splitlines()[0]}")
options = onnxruntime.SessionOptions()
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
options.optimized_model_filepath = str(whole.with_name("model.onnx"))
onnxruntime.InferenceSession(whole, options, providers=["CPUExecutionProvider"])
