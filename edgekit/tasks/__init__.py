"""One file per task: text to tensors, loss, metrics, label names."""
