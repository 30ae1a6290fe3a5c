"""A third-party embedding model in an ONNX file, small enough to be checked by hand."""

from __future__ import annotations

from pathlib import Path

from onnx import TensorProto, helper


def write_mean_channels(path: Path, *, size: tuple[int, int] = (8, 4)) -> Path:
    """Writes a model that embeds images [B, 3, *size] as the means of their channels, [B, 3]."""
    images = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, *size])
    rows = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["means"]),
        helper.make_node("Flatten", ["means"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "means", [images], [rows])
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, ir_version=8, opset_imports=[opset])
    path.write_bytes(model.SerializeToString())
    return path
