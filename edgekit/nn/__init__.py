"""The torch side: where each architecture keeps its parts, how they are resized, and the one training loop."""
