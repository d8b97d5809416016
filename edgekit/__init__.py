"""edgekit: compress, export, measure and gate Transformers for edge devices.

The Python API is the modules themselves: `edgekit.api.run`, `edgekit.recipe`, `edgekit.plan`, `edgekit.store`,
`edgekit.bench`, `edgekit.gate`. Nothing heavy is imported here.
"""

__version__ = "0.1.0"
