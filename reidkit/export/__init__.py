"""From a checkpoint to a verified ONNX file that a particular program loads."""
