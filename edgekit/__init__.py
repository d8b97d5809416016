"""edgekit: compress, export, measure and gate Transformers for edge devices.

The Python API is the modules themselves: `edgekit.api.run`, `edgekit.recipe`, `edgekit.plan`, `edgekit.store`,
`edgekit.bench`, `edgekit.gate`. Nothing heavy is imported here.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime sends what it is used for to its makers, from 1.32 on

__version__ = "0.1.0"
