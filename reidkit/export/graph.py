"""Clean-up of exported graphs, so that runtimes other than the newest ONNX Runtime load them.

The rewrites keep results bit for bit, but for the rounding of a mean that is split. The shapes that
torch's exporter infers decide where one is valid; a node whose shapes are unknown stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import (
    IR_VERSION,
    GraphProto,
    ModelProto,
    NodeProto,
    defs,
    helper,
    numpy_helper,
    version_converter,
)
from onnx.reference import ReferenceEvaluator

from reidkit.errors import ConfigError

Shape = list[int | str]
"""Sizes of an array; a string is the name of a size that is not fixed."""

FOLD_LIMIT = 2**22
"""Numbers in the largest constant that folding may add."""

LOWEST_IR = 8
"""Of opset 15 to 18. ONNX Runtime 1.17 reads up to 9."""

_BROADCASTING = ("Add", "Sub", "Mul", "Div", "Min", "Max")
_REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2")
"""Their axes became an input in opset 18 and were an attribute before."""

_CONVERTIBLE = 13
"""The earliest opset that reductions and paddings of opset 18 are converted to."""


def clean(proto: ModelProto) -> None:
    """Rewrites the graph in place. The names of its inputs and outputs stay.

    Constant subgraphs are folded. A reshape to at most one size that is not fixed gets a constant
    shape. An Expand whose result is broadcast anyway is removed, a mask of booleans becomes a
    minimum, and Unsqueeze inserts one axis at a time: OpenCV 4.11 fails on the originals. A mean
    over axes that are not adjacent becomes several: OpenCV 5 gives wrong results. An axis of size
    1, such as an image's frames, is reshaped away and not averaged over: OpenCV 4 gives wrong
    results for a second batch of another size. An output that other nodes use gets an Identity of
    its own, for float16 converters, and a fully connected layer that is applied twice two copies of
    its weight, for quantisers. The shapes of intermediate values are removed: those of constants
    stop ONNX Runtime's quantisers, and runtimes infer the others.
    """
    _remove_source_info(proto)
    graph = Graph(proto.graph)
    graph.fold_constants()
    graph.masks_to_minima()
    graph.fix_shapes()
    graph.remove_expands()
    graph.split_unsqueezes()
    graph.remove_means_of_one()
    graph.split_means()
    graph.separate_outputs()
    graph.separate_weights()
    graph.remove_unused()
    graph.name_nodes()
    del proto.graph.value_info[:]


class Graph:
    """A graph whose constants and shapes are found by name."""

    def __init__(self, proto: GraphProto) -> None:
        self.proto = proto
        self.constants = {entry.name: numpy_helper.to_array(entry) for entry in proto.initializer}
        self.shapes = dict(_shapes([*proto.value_info, *proto.input, *proto.output]))

    def nodes(self, *types: str) -> list[NodeProto]:
        return [node for node in self.proto.node if not types or node.op_type in types]

    def add_constant(self, name: str, array: NDArray[Any]) -> str:
        self.constants[name] = array
        self.proto.initializer.append(numpy_helper.from_array(array, name))
        return name

    def users(self, name: str) -> list[NodeProto]:
        return [node for node in self.proto.node if name in node.input]

    def replace(self, node: NodeProto, replacements: Iterable[NodeProto]) -> None:
        position = next(k for k, other in enumerate(self.proto.node) if other is node)
        self.proto.node.remove(node)
        for offset, replacement in enumerate(replacements):
            self.proto.node.insert(position + offset, replacement)

    def fold_constants(self) -> None:
        """Computes the nodes of which all inputs are constant, such as a location prior's."""
        for node in self.nodes():
            inputs = [name for name in node.input if name]
            if not inputs or not self.constants.keys() >= set(inputs):
                continue
            shape = self.shapes.get(node.output[0], [])
            if np.prod([size for size in shape if isinstance(size, int)]) > FOLD_LIMIT:
                continue
            found = ReferenceEvaluator(node).run(None, {k: self.constants[k] for k in inputs})
            for name, array in zip(node.output, found, strict=True):
                self.add_constant(name, np.asarray(array))
            self.replace(node, [])

    def masks_to_minima(self) -> None:
        """x where not masked, else the lowest float: the minimum of x and a constant."""
        for node in self.nodes("Where"):
            mask, value = (self.constants.get(name) for name in node.input[:2])
            if mask is None or value is None or value.dtype != np.float32 or value.size != 1:
                continue
            limits = np.finfo(value.dtype)
            if value.item() != limits.min:
                continue
            bound: NDArray[Any] = np.full(mask.shape, limits.max, value.dtype)
            bound[mask] = limits.min
            name = self.add_constant(f"{node.output[0]}_bound", bound)
            self.replace(node, [helper.make_node("Min", [node.input[2], name], node.output)])

    def fix_shapes(self) -> None:
        for node in self.nodes("Reshape", "Squeeze", "Unsqueeze"):
            shape = self.shapes.get(node.output[0])
            free = [size for size in shape or [] if isinstance(size, str)]
            if not shape or len(free) > 1:  # quant_pre_process fails on a reshape to a number
                continue
            sizes = np.array([-1 if isinstance(size, str) else size for size in shape], np.int64)
            name = self.add_constant(f"{node.output[0]}_shape", sizes)
            self.replace(node, [helper.make_node("Reshape", [node.input[0], name], node.output)])

    def remove_expands(self) -> None:
        for node in self.nodes("Expand"):
            source, result = node.input[0], node.output[0]
            users = self.users(result)
            if all(self._broadcasts(user, result) for user in users):
                for user in users:
                    _rename_inputs(user, result, source)
                self.replace(node, [])

    def _broadcasts(self, user: NodeProto, expanded: str) -> bool:
        """Whether the other operand alone has the shape of the result."""
        others = [self.shapes.get(name) for name in user.input if name != expanded]
        shape = self.shapes.get(user.output[0])
        return user.op_type in _BROADCASTING and shape is not None and shape in others

    def split_unsqueezes(self) -> None:
        for node in self.nodes("Unsqueeze"):
            axes = self.constants.get(node.input[1])
            shape = self.shapes.get(node.output[0])
            if axes is None or axes.size < 2 or (shape is None and axes.min() < 0):
                continue
            rank = len(shape or [])
            names = [f"{node.output[0]}_axis{k}" for k in range(axes.size)]
            results = [node.input[0], *names[:-1], node.output[0]]
            ordered = sorted(int(axis) + rank * (axis < 0) for axis in axes.flat)
            for name, axis in zip(names, ordered, strict=True):
                self.add_constant(f"{name}_index", np.array([axis], np.int64))
            self.replace(
                node,
                (
                    helper.make_node("Unsqueeze", [source, f"{name}_index"], [result])
                    for name, source, result in zip(names, results[:-1], results[1:], strict=True)
                ),
            )

    def remove_means_of_one(self) -> None:
        """A mean over an axis of size 1 becomes a reshape."""
        for node in self.nodes("ReduceMean"):
            axes = self.constants.get(node.input[1]) if len(node.input) > 1 else None
            sizes, result = (self.shapes.get(name) for name in (node.input[0], node.output[0]))
            drops = any(entry.name == "keepdims" and entry.i == 0 for entry in node.attribute)
            if axes is None or axes.min() < 0 or not (sizes and result and drops):
                continue
            averaged = [int(axis) for axis in axes.flat if sizes[axis] != 1]
            if len(averaged) == axes.size or sum(isinstance(size, str) for size in result) > 1:
                continue
            source, replacements = node.input[0], []
            if averaged:
                source = f"{node.output[0]}_mean"
                axis = self.add_constant(f"{source}_axes", np.array(averaged, np.int64))
                mean = helper.make_node("ReduceMean", [node.input[0], axis], [source], keepdims=0)
                replacements.append(mean)
            shape = [-1 if isinstance(size, str) else size for size in result]
            name = self.add_constant(f"{node.output[0]}_shape", np.array(shape, np.int64))
            replacements.append(helper.make_node("Reshape", [source, name], node.output))
            self.replace(node, replacements)

    def split_means(self) -> None:
        """One mean per group of adjacent axes, the last group first."""
        for node in self.nodes("ReduceMean"):
            axes = self.constants.get(node.input[1]) if len(node.input) > 1 else None
            if axes is None or axes.min() < 0:
                continue
            ordered = np.sort(axes)
            groups = np.split(ordered, np.flatnonzero(np.diff(ordered) > 1) + 1)
            sizes = self.shapes.get(node.input[0])
            averaged = [group for group in groups if not sizes or any(sizes[k] != 1 for k in group)]
            if len(averaged) < 2:
                continue  # a mean over an axis of size 1 is correct
            names = [f"{node.output[0]}_group{k}" for k in range(1, len(groups))]
            keepdims = [entry for entry in node.attribute if entry.name == "keepdims"]
            means = []
            for group, source, result in zip(
                reversed(groups), [node.input[0], *names], [*names, node.output[0]], strict=True
            ):
                axis = self.add_constant(f"{result}_axes", group)
                mean = helper.make_node("ReduceMean", [source, axis], [result])
                mean.attribute.extend(keepdims)
                means.append(mean)
            self.replace(node, means)

    def separate_outputs(self) -> None:
        """An output that other nodes use as well becomes an Identity of an inner value."""
        for output in self.proto.output:
            if not self.users(output.name):
                continue
            inner = f"{output.name}_value"
            for node in self.nodes():
                _rename_inputs(node, output.name, inner)
                for k, name in enumerate(node.output):
                    if name == output.name:
                        node.output[k] = inner
            self.proto.node.append(helper.make_node("Identity", [inner], [output.name]))

    def name_nodes(self) -> None:
        """Names by position: converters need unique ones."""
        for k, node in enumerate(self.proto.node):
            node.name = f"{node.op_type}_{k}"

    def separate_weights(self) -> None:
        """Gives each Gemm a weight of its own: ONNX Runtime's dynamic quantiser transposes it."""
        taken: set[str] = set()
        for node in self.nodes("Gemm"):
            name = node.input[1]
            if name in taken:
                node.input[1] = self.add_constant(f"{node.output[0]}_weight", self.constants[name])
            taken.add(name)

    def remove_unused(self) -> None:
        needed = {output.name for output in self.proto.output}
        for node in reversed(self.nodes()):
            if needed & set(node.output):
                needed |= set(node.input)
            else:
                self.proto.node.remove(node)
        for entry in list(self.proto.initializer):
            if entry.name not in needed:
                self.proto.initializer.remove(entry)


def set_opset(proto: ModelProto, opset: int) -> None:
    """Converts an opset 18 graph to another opset, in place.

    Raises:
        ConfigError: a node has another meaning, or does not exist, in that opset.
    """
    found = next(entry for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if opset > found.version:
        _raise_opset(proto, opset)
    elif opset < found.version:
        _lower_opset(proto, opset)
    versions = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    if versions != [opset]:
        raise ConfigError(
            f"--opset {opset}: the conversion gave opset {versions[0]}. Write --opset {versions[0]}"
        )


def _raise_opset(proto: ModelProto, opset: int) -> None:
    known = defs.onnx_opset_version()
    if opset > known:
        raise ConfigError(
            f"--opset {opset}: the installed onnx knows opsets up to {known}. "
            f"Write --opset {known}, or install a newer onnx"
        )
    try:
        proto.CopyFrom(version_converter.convert_version(proto, opset))
    except RuntimeError as error:  # no adapter for a node
        reason = str(error).strip().splitlines()[-1]
        raise ConfigError(
            f"--opset {opset}: onnx cannot convert the graph ({reason}). Write a lower one"
        ) from error


def _lower_opset(proto: ModelProto, opset: int) -> None:
    found = next(entry for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    constants = {entry.name: entry for entry in proto.graph.initializer}
    refused: dict[str, int] = {}
    for node in proto.graph.node:
        new = defs.get_schema(node.op_type, found.version)
        try:
            old = defs.get_schema(node.op_type, opset)
        except defs.SchemaError:
            old = None
        if old is not None and old.since_version == new.since_version:
            continue
        convertible = node.op_type in (*_REDUCTIONS, "Pad")
        if convertible and opset < _CONVERTIBLE:
            refused[node.op_type] = _CONVERTIBLE
            continue
        if node.op_type == "Pad" and len(node.input) <= 3:
            continue  # opset 18 added its fourth input, the axes
        if node.op_type in _REDUCTIONS and node.input[1] in constants:
            axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
            keepdims = [entry for entry in node.attribute if entry.name == "keepdims"]
            del node.input[1:], node.attribute[:]
            node.attribute.extend([*keepdims, helper.make_attribute("axes", axes)])
            continue
        refused[node.op_type] = new.since_version
    if refused:
        names = ", ".join(f"{name} of opset {version}" for name, version in refused.items())
        least = max(refused.values())
        raise ConfigError(
            f"--opset {opset}: the network needs {names}. Write --opset {least}, or leave --opset "
            "out"
        )
    found.version = opset
    Graph(proto.graph).remove_unused()  # the axes


def set_ir(proto: ModelProto, ir: int | None) -> None:
    """Sets the version of the file format, in place; None sets the lowest one from `LOWEST_IR` on.

    Raises:
        ConfigError: that version cannot contain the graph's opset, or is not known.
    """
    least = helper.find_min_ir_version_for(proto.opset_import)
    if ir is None:
        ir = max(least, LOWEST_IR)
    if not least <= ir <= IR_VERSION:
        raise ConfigError(
            f"--ir {ir}: found opset {proto.opset_import[0].version}, which needs {least} or more; "
            f"the installed onnx writes up to {IR_VERSION}. Write --ir {least}"
        )
    proto.ir_version = ir


def _rename_inputs(node: NodeProto, old: str, new: str) -> None:
    for k, name in enumerate(node.input):
        if name == old:
            node.input[k] = new


def _shapes(values: Iterable[Any]) -> Iterator[tuple[str, Shape]]:
    """Names and shapes of the values of which every size is known or named."""
    for value in values:
        tensor = value.type.tensor_type
        sizes = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
        if tensor.HasField("shape") and all(sizes):
            yield value.name, sizes


def _remove_source_info(proto: ModelProto) -> None:
    """Removes stack traces: an exported file contains no local paths or source lines."""
    graph = proto.graph
    entries = [*graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info]
    for entry in (proto, graph, *entries):
        del entry.metadata_props[:]
        entry.doc_string = ""
    assert not proto.functions, "the exporter inlines its functions"
