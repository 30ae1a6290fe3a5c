"""The clean-up of graphs keeps their results, and an opset that cannot be had is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from reidkit.errors import ConfigError
from reidkit.export.graph import clean, set_ir, set_opset
from reidkit.export.precision import float16_graphs, to_float16


def graph(
    nodes: list[onnx.NodeProto],
    *,
    shape: list[int | str],
    result: list[int | str],
    constants: dict[str, np.ndarray],
    shapes: dict[str, list[int | str]] | None = None,
) -> onnx.ModelProto:
    """A graph from x to y, with the shapes that torch's exporter would state."""
    values = {"x": shape, "y": result} | (shapes or {})
    infos = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)
        for name, sizes in values.items()
    }
    proto = helper.make_graph(
        nodes,
        "test",
        [infos["x"]],
        [infos["y"]],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
        value_info=[infos[name] for name in shapes or {}],
    )
    return helper.make_model(proto, opset_imports=[helper.make_opsetid("", 18)])


def run(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(proto, full_check=True)
    return ReferenceEvaluator(proto).run(None, {"x": x})[0]


def types(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_a_boolean_mask_becomes_a_minimum() -> None:
    lowest = np.array(np.finfo(np.float32).min)
    proto = graph(
        [helper.make_node("Where", ["mask", "lowest", "x"], ["y"])],
        shape=["batch", 2, 2],
        result=["batch", 2, 2],
        constants={"mask": np.eye(2, dtype=bool), "lowest": lowest},
    )
    before = run(proto, random(3, 2, 2))
    clean(proto)
    assert types(proto) == ["Min"]
    np.testing.assert_array_equal(run(proto, random(3, 2, 2)), before)


def test_expansion_that_broadcasting_does_is_removed_and_other_is_kept() -> None:
    def expand_then(last: onnx.NodeProto, result: list[int | str]) -> onnx.ModelProto:
        nodes = [
            helper.make_node("ReduceMax", ["x", "axis"], ["largest"]),
            helper.make_node("Shape", ["x"], ["sizes"]),
            helper.make_node("Expand", ["largest", "sizes"], ["wide"]),
            last,
        ]
        shapes = {"largest": ["batch", 1], "wide": ["batch", 4]}
        constants = {"axis": np.array([1])}
        return graph(nodes, shape=["batch", 4], result=result, constants=constants, shapes=shapes)

    divided = expand_then(helper.make_node("Div", ["x", "wide"], ["y"]), ["batch", 4])
    joined = expand_then(helper.make_node("Concat", ["x", "wide"], ["y"], axis=1), ["batch", 8])
    for proto, expected in ((divided, ["ReduceMax", "Div"]), (joined, None)):
        before = run(proto, random(3, 4))
        clean(proto)
        assert types(proto) == expected or "Expand" in types(proto)
        np.testing.assert_array_equal(run(proto, random(3, 4)), before)
    assert "Expand" not in types(divided)


def test_new_axes_become_reshapes_or_are_inserted_one_at_a_time() -> None:
    def unsqueeze(shape: list[int | str], result: list[int | str]) -> onnx.ModelProto:
        node = helper.make_node("Unsqueeze", ["x", "axes"], ["y"])
        axes = {"axes": np.array([-1, 1])}
        return graph([node], shape=shape, result=result, constants=axes)

    for proto, expected in (
        (unsqueeze(["batch", 4], ["batch", 1, 4, 1]), ["Reshape"]),
        (unsqueeze(["batch", "frames"], ["batch", 1, "frames", 1]), ["Unsqueeze"] * 2),
    ):
        clean(proto)
        assert types(proto) == expected
        assert run(proto, random(3, 4)).shape == (3, 1, 4, 1)


@pytest.mark.parametrize(("frames", "means"), [(2, 2), (1, 1)])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_mean_over_axes_that_are_not_adjacent_becomes_several(
    keepdims: int, frames: int, means: int
) -> None:
    """OpenCV 5 gives wrong means over such axes, unless all but one group have the size 1."""
    node = helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=keepdims)
    proto = graph(
        [node],
        shape=["batch", frames, 3, 4, 5],
        result=["batch", 1, 3, 1, 1] if keepdims else ["batch", 3],
        constants={"axes": np.array([1, 3, 4])},
    )
    x = random(6, frames, 3, 4, 5)
    clean(proto)
    reshaped = ["Reshape"] if frames == 1 and not keepdims else []
    assert types(proto) == ["ReduceMean"] * means + reshaped
    expected = x.mean((1, 3, 4), keepdims=bool(keepdims))
    np.testing.assert_allclose(run(proto, x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("axes", [[1], [1, 2]])
def test_a_mean_over_one_frame_is_a_reshape(axes: list[int]) -> None:
    """OpenCV 4 gives wrong results for a second batch of another size."""
    node = helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0)
    shape = ["batch", 1, 1, 5]
    result = [size for axis, size in enumerate(shape) if axis not in axes]
    proto = graph([node], shape=shape, result=result, constants={"axes": np.array(axes)})
    x = random(6, 1, 1, 5)
    clean(proto)
    assert types(proto) == ["Reshape"]
    assert (run(proto, x) == x.mean(tuple(axes))).all()


def test_constants_are_folded_and_unused_ones_removed() -> None:
    proto = graph(
        [
            helper.make_node("Neg", ["a"], ["b"]),
            helper.make_node("Add", ["x", "b"], ["y"]),
        ],
        shape=["batch", 2],
        result=["batch", 2],
        constants={"a": random(2), "unused": random(7)},
    )
    before = run(proto, random(3, 2))
    clean(proto)
    assert types(proto) == ["Add"] and [i.name for i in proto.graph.initializer] == ["b"]
    np.testing.assert_array_equal(run(proto, random(3, 2)), before)


def reduction(source: str = "x") -> onnx.ModelProto:
    node = helper.make_node("ReduceMean", [source, "axes"], ["y"], keepdims=0)
    axes = {"axes": np.array([1])}
    return graph([node], shape=["batch", 4], result=["batch"], constants=axes)


@pytest.mark.parametrize("opset", [16, 17, 18, 20])
def test_the_opset_is_the_one_that_was_requested(opset: int) -> None:
    proto = reduction()
    before = run(proto, random(3, 4))
    set_opset(proto, opset)
    set_ir(proto, None)
    assert [entry.version for entry in proto.opset_import] == [opset]
    assert proto.ir_version == (9 if opset == 20 else 8)
    np.testing.assert_array_equal(run(proto, random(3, 4)), before)


def test_an_opset_or_ir_version_that_cannot_be_had_is_refused() -> None:
    mish = graph([helper.make_node("Mish", ["x"], ["y"])], shape=[2], result=[2], constants={})
    with pytest.raises(ConfigError, match="--opset 17: the network needs Mish of opset 18"):
        set_opset(mish, 17)
    both = graph(
        [helper.make_node("Mish", ["x"], ["m"]), *reduction(source="m").graph.node],
        shape=["batch", 4],
        result=["batch"],
        constants={"axes": np.array([1])},
    )
    with pytest.raises(ConfigError, match=r"Mish of opset 18, ReduceMean of opset 13. Write .* 18"):
        set_opset(both, 12)
    newest = onnx.defs.onnx_opset_version()
    with pytest.raises(ConfigError, match=f"--opset 99: .* knows opsets up to {newest}"):
        set_opset(reduction(), 99)
    for ir in (7, onnx.IR_VERSION + 1):
        with pytest.raises(ConfigError, match=f"--ir {ir}: .* Write --ir 8"):
            set_ir(reduction(), ir)


def test_products_of_feature_maps_stay_float32() -> None:
    """300 * 300 overflows float16."""
    proto = graph(
        [
            helper.make_node("Conv", ["x", "weight"], ["map"]),
            helper.make_node("Reshape", ["map", "shape"], ["nodes"]),
            helper.make_node("Transpose", ["nodes"], ["columns"], perm=[0, 2, 1]),
            helper.make_node("MatMul", ["nodes", "columns"], ["y"]),
        ],
        shape=["batch", 1, 1, 2],
        result=["batch", 1, 1],
        constants={
            "weight": np.ones((1, 1, 1, 1), np.float32),
            "shape": np.array([-1, 1, 2]),
        },
    )
    to_float16(proto)
    kinds = {entry.name: entry.data_type for entry in proto.graph.initializer}
    assert kinds["weight_half"] == TensorProto.FLOAT16
    found = run(proto, np.full((1, 1, 1, 2), 300, np.float32))
    assert found.item() == 180_000


def gated() -> onnx.ModelProto:
    """A convolution, times the sigmoid of a second one of equal size."""
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["map"]),
        helper.make_node("Conv", ["map", "second"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["gate"]),
        helper.make_node("Mul", ["map", "gate"], ["y"]),
    ]
    weights = {name: np.ones((1, 1, 1, 1), np.float32) for name in ("first", "second")}
    return graph(nodes, shape=["batch", 1, 2, 2], result=["batch", 1, 2, 2], constants=weights)


def float16_convolutions(proto: onnx.ModelProto) -> list[str]:
    names = [node.input[1] for node in proto.graph.node if node.op_type == "Conv"]
    return [name.removesuffix("_half") for name in names if name.endswith("_half")]


def test_the_first_layers_can_stay_float32() -> None:
    for first_float32, halves in ((0.0, ["first", "second"]), (0.5, ["second"])):
        proto = gated()
        share = to_float16(proto, first_float32=first_float32)
        assert float16_convolutions(proto) == halves and share == len(halves) / 2
        expected = run(gated(), random(3, 1, 2, 2))
        np.testing.assert_allclose(run(proto, random(3, 1, 2, 2)), expected, atol=2e-3)


def test_float16_is_tried_on_everything_first_then_on_the_last_layers() -> None:
    proto = gated()
    shares = [share for _, share in float16_graphs(proto)]
    assert shares == [1.0, 0.5]  # none twice, and none without float16
    assert proto == gated()


def test_a_graph_without_convolutions_has_one_float16_copy_which_is_float32() -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    proto = graph([node], shape=["batch", 2], result=["batch", 2], constants={})
    assert list(float16_graphs(proto)) == [(proto, 0.0)]


def test_layers_that_share_a_weight_get_their_own_copy() -> None:
    """ONNX Runtime's dynamic quantiser transposes each layer's weight in place."""
    proto = graph(
        [
            helper.make_node("Gemm", ["x", "weight"], ["once"], transB=1),
            helper.make_node("Gemm", ["once", "weight"], ["y"], transB=1),
        ],
        shape=["batch", 2],
        result=["batch", 2],
        constants={"weight": random(2, 2)},
    )
    before = run(proto, random(3, 2))
    clean(proto)
    assert len({node.input[1] for node in proto.graph.node}) == 2
    np.testing.assert_array_equal(run(proto, random(3, 2)), before)
