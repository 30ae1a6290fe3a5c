"""Running trained networks: embedding and extraction.

    from reidkit.runtime import Runtime

    runtime = Runtime("model.onnx")
    rows = runtime.embed(frame, boxes=detections, channels="bgr")      # float32 [N, D]

Importing this, and running an ONNX file by it, imports no torch.
"""

from reidkit.runtime.crops import Runtime

__all__ = ["Runtime"]
