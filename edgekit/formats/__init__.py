"""File formats: writing ONNX and GGUF from a Transformers folder, and quantizing in the file's own format."""
