"""Exported graphs in float16 and in int8."""

# B batch, T frames, H W pixels

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, load, save, shape_inference

from reidkit.export.graph import Graph
from reidkit.export.settings import Feed

_FOLLOWERS = frozenset(
    (
        *("Relu", "Sigmoid", "Add", "Mul", "Concat", "MaxPool", "AveragePool"),
        *("Reshape", "Transpose", "Identity"),
    )
)
"""Nodes that become float16 after a convolution."""

CALIBRATION_BATCH = 8

FLOAT32_SHARES = (0.0, 0.25, 0.5, 0.75, 0.95)
"""Of the convolutions' work, what `float16_graphs` leaves in float32, from the input on."""


def float16_graphs(proto: ModelProto) -> Iterator[tuple[ModelProto, float]]:
    """Copies of the graph in float16, with more and more first layers left in float32, each with
    the share of the convolutions' work that is float16. Further copies without float16, and those
    that equal the one before, are left out.

    Attention from products of feature maps multiplies the rounding errors of all layers before it,
    and with a softmax of them it may choose another one of two that are nearly equal. Its own nodes
    in float32 do not help, only more accurate inputs do. How many layers have to be accurate
    depends on the weights: the caller takes the first copy that is accurate.
    """
    previous = -1.0
    for first_float32 in FLOAT32_SHARES:
        candidate = ModelProto()
        candidate.CopyFrom(proto)
        share = to_float16(candidate, first_float32=first_float32)
        if share != previous and (share or previous < 0):  # the first one in any case
            yield candidate, share
        previous = share


def to_float16(proto: ModelProto, *, first_float32: float = 0.0) -> float:
    """Makes the convolutional part of the graph float16, in place; input and outputs stay float32.

    Convolutions and the elementwise nodes and poolings after them. Matrix products of feature maps
    overflow float16, the softmax of raw products needs float32, and means and norms are a small
    part of the work.

    Args:
        first_float32: share of the convolutions' work, from the input on, that stays float32.
    Returns:
        The share of the convolutions' work that is float16.
    """
    work = _convolution_work(proto)
    graph = Graph(proto.graph)
    done = 0.0  # share of the work up to this node
    share = 0.0  # of it in float16
    half: set[str] = set()  # values that exist in float16, as NAME_half
    full = {entry.name for entry in proto.graph.input}  # and in float32
    nodes: list[NodeProto] = []

    def as_half(name: str) -> str:
        if name in graph.constants and name not in half:
            graph.add_constant(f"{name}_half", graph.constants[name].astype(np.float16))
        elif name not in half:
            nodes.append(_cast(name, f"{name}_half", TensorProto.FLOAT16))
        half.add(name)
        return f"{name}_half"

    def as_full(name: str) -> str:
        if name in half and name not in full and name not in graph.constants:
            nodes.append(_cast(f"{name}_half", name, TensorProto.FLOAT))
            full.add(name)
        return name

    for node in graph.nodes():
        converted = half.intersection(node.input) - graph.constants.keys()
        done += work.get(node.output[0], 0.0)
        starts = node.op_type == "Conv" and done > first_float32
        follows = node.op_type in _FOLLOWERS and bool(converted)
        if starts or follows:
            share += work.get(node.output[0], 0.0)
            shape = node.input[1:] if node.op_type == "Reshape" else []
            node.input[:] = [as_half(name) for name in node.input if name not in shape] + shape
            half.update(node.output)
            node.output[:] = [f"{name}_half" for name in node.output]
        else:
            node.input[:] = [name and as_full(name) for name in node.input]
            full.update(node.output)
        nodes.append(node)
    for output in proto.graph.output:
        as_full(output.name)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    graph.remove_unused()
    return share


def _convolution_work(proto: ModelProto) -> dict[str, float]:
    """Each convolution's share of the multiplications of all, by the name of its output; sizes that
    are not known count as one."""
    inferred = shape_inference.infer_shapes(proto).graph
    sizes = {
        value.name: [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.output)
    }
    weights = {entry.name: entry.dims for entry in inferred.initializer}
    work = {
        node.output[0]: math.prod(weights[node.input[1]])
        * math.prod(sizes.get(node.output[0], [])[2:])
        for node in inferred.node
        if node.op_type == "Conv"
    }
    total = sum(work.values())
    return {name: own / total for name, own in work.items()}


def _cast(source: str, target: str, kind: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"Cast_{target}", to=kind)


def to_int8(
    proto: ModelProto, crops: Sequence[NDArray[np.uint8]], feed: Feed, *, batch: int | None
) -> ModelProto:
    """The float32 graph with convolutions quantised: static, weights signed and per channel,
    activations unsigned, their ranges the extremes over the crops.

    ReLU is quantised with them: its output alone is rounded, and no pair of conversions stays
    between the two. The rest is a small part of the work and a large part of the error.

    Args:
        crops: RGB crops of the network's size, each uint8 [H, W, 3], or clips [T, H, W, 3] of equal
            length.
        feed: what the caller of the file does to a batch of them.
        batch: fixed batch size of the file; None: any.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    name = proto.graph.input[0].name

    class Batches(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self.batches = crop_batches(crops, batch or CALIBRATION_BATCH)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            found = next(self.batches, None)
            return None if found is None else {name: feed(found)}

    with tempfile.TemporaryDirectory(prefix="reidkit-") as folder, _silence_quantiser():
        source, target = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        save(proto, source)
        quantize_static(
            str(source),
            str(target),
            Batches(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Relu"],
        )
        found = load(target)
    found.producer_name, found.producer_version = proto.producer_name, proto.producer_version
    return found


def crop_batches(crops: Sequence[NDArray[np.uint8]], batch: int) -> Iterator[NDArray[np.uint8]]:
    """Full batches of the crops, the last one filled up from their beginning."""
    for start in range(0, len(crops), batch):
        yield np.stack([crops[k % len(crops)] for k in range(start, start + batch)])


@contextlib.contextmanager
def _silence_quantiser() -> Iterator[None]:
    """Silences the root logger, which ONNX Runtime's quantiser gives advice through."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
