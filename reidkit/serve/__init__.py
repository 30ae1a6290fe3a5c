"""An embedder behind HTTP: the Open Inference Protocol v2 and plain JPEG. Imports no torch."""
