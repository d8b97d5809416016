"""llama.cpp's own quantizer, with all threads, in a process of its own: python llama_quantize.py SOURCE OUT TYPE."""

import ctypes
import sys

from llama_cpp import llama_cpp as llama

source, out, kind = sys.argv[1:]
params = llama.llama_model_quantize_default_params()
params.ftype = getattr(llama, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}")
llama.llama_backend_init()
sys.exit(llama.llama_model_quantize(source.encode(), out.encode(), ctypes.byref(params)))
