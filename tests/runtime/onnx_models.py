"""Small ONNX models for tests, of third parties and with reidkit's metadata."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from reidkit.preprocess import Preprocess

SIZE = (8, 4)
PLAIN = Preprocess(size=SIZE, mean=(0, 0, 0), std=(1, 1, 1))


def write_onnx(
    path: Path,
    nodes: list[Any],
    shape: list[Any],
    *,
    dtype: int = TensorProto.FLOAT,
    outputs: dict[str, list[Any]] | None = None,
    initializers: list[Any] | None = None,
    metadata: Any = None,
) -> Path:
    """A model with the input x; by default with the output y [n, 3].

    Args:
        metadata: reidkit's, as JSON; a string is written as it is.
    """
    declared = {"y": ["n", 3]} if outputs is None else outputs
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, s) for k, s in declared.items()],
        initializers or [],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    if metadata is not None:
        text = metadata if isinstance(metadata, str) else json.dumps(metadata)
        helper.set_model_props(model, {"reidkit": text})
    onnx.save(model, path)
    return path


def mean_nodes(source: str = "x") -> list[Any]:
    """The mean of each channel of [n, 3, h, w]: y [n, 3]."""
    return [
        helper.make_node("GlobalAveragePool", [source], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]


def export_metadata(**changes: Any) -> dict[str, Any]:
    """The metadata that reidkit's exports have."""
    found = {
        "format": 2,
        "arch": "mean",
        "preprocess": dataclasses.asdict(PLAIN),
        "frames": 0,
        "pixels": "normalised",
        "outputs": ["y"],
        "features_output": "y",
        "precision": "fp32",
    }
    return {**found, **changes}
