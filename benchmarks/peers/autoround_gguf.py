"""AutoRound's GGUF export in an environment of its own: python autoround_gguf.py FOLDER WINDOWS.npy OUT TYPE.

WINDOWS: token ids (windows, length) to calibrate on. Its converter knows a pre-tokenizer by a hash of what it cuts some
text into, and not that of a tokenizer trained anew; it is told that ours is GPT-2's. Files are compared on token ids.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from auto_round import AutoRound
from auto_round.export.export_to_gguf import llama_cpp_conversion as conversions
from transformers import AutoTokenizer

folder, windows, out, kind = sys.argv[1:]
load = conversions._import_conversion_from


def load_and_tell(root: Path, source: str) -> conversions.ConversionContext:
    """Its converter, which it loads as a package of its own each time."""
    found = load(root, source)
    sys.modules["conversion.base"].TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
    return found


conversions._import_conversion_from = load_and_tell
rows = [row[None] for row in torch.from_numpy(np.load(windows)).long()]
rounding = AutoRound(
    folder,
    AutoTokenizer.from_pretrained(folder, local_files_only=True),
    scheme=f"GGUF:{kind.upper()}",
    dataset=[{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in rows],
    nsamples=len(rows),
    seqlen=rows[0].shape[1],
)
rounding.quantize_and_save(out, format=f"gguf:{kind}")
