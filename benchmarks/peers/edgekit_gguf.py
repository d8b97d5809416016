"""edgekit's GGUF writer in a process of its own: python edgekit_gguf.py FOLDER OUT TYPE."""

import sys
from pathlib import Path

from edgekit.formats.gguf_decoder import preset_types, write_gguf_decoder

folder, out, kind = sys.argv[1:]
write_gguf_decoder(Path(folder), Path(out), preset_types(Path(folder), kind), preset=kind)
