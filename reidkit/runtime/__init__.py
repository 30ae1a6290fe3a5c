"""Networks at work: embedders in PyTorch and ONNX Runtime, extraction, export."""
