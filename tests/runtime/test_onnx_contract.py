"""ONNX files: their inputs, outputs and metadata, and what is refused."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import PLAIN, SIZE, export_metadata, mean_nodes

from reidkit.device import cuda_device_count
from reidkit.errors import CheckpointError, ConfigError, RuntimeMissing
from reidkit.runtime import onnx_session
from reidkit.runtime.execution import Execution
from reidkit.runtime.onnx_runtime import OnnxEmbedder
from reidkit.runtime.onnx_session import choose_provider, cpu_nodes, open_session

Write = Callable[..., Path]
PIXELS = np.tile(np.array([255, 0, 51], np.uint8), (2, *SIZE, 1))  # [2, 8, 4, 3]
INPUTS = {"mean": [0, 0, 0], "std": [1, 1, 1]}


def load(path: Path, **inputs: Any) -> OnnxEmbedder:
    return OnnxEmbedder(path, device="cpu", inputs=inputs)


def refuse(path: Path, expected: str, **inputs: Any) -> None:
    with pytest.raises((CheckpointError, ConfigError), match=expected) as caught:
        load(path, **inputs)
    assert str(path.parent) in str(caught.value)


# Third-party files


def test_without_metadata_the_assumptions_are_stated(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(shape=["n", 3, "h", "w"])
    with caplog.at_level(logging.WARNING):
        assert load(path).preprocess.size == (256, 128)
    assert caplog.messages == [
        f"{path} has no preprocessing metadata; assuming 256x128, bicubic, ImageNet mean and std, "
        "RGB. Override with --size, --resize, --mean, --std, --channels, or --preprocess FILE"
    ]


def test_a_toml_file_beside_the_model_states_its_preprocessing(write: Write) -> None:
    path = write(shape=["n", 3, "h", "w"])
    path.with_suffix(".toml").write_text('size = [8, 4]\nchannels = "bgr"\n')
    found = load(path, **INPUTS).preprocess
    assert (found.size, found.channels, found.mean) == ((8, 4), "bgr", (0, 0, 0))
    path.with_suffix(".toml").write_text("sise = [8, 4]\n")
    refuse(path, r"m\.toml: unknown key sise. Did you mean size\?")


def test_a_size_that_does_not_fit_is_refused(write: Write) -> None:
    refuse(write(), "only takes images of 8x4, not of 64x32", size=[64, 32])
    refuse(write(shape=["n", 3, 8, "w"]), "only takes images of 8xany, not of 9x4", size=[9, 4])


@pytest.mark.parametrize("size", [[0, 4], [-8, 4], [10**6, 10**6]])
def test_absurd_sizes_are_refused(write: Write, size: list[int]) -> None:
    refuse(write(shape=["n", 3, "h", "w"]), "size must be 1 to 4096 pixels", size=size)


def test_batches_are_padded_to_a_fixed_batch_size(write: Write) -> None:
    embedder = load(write(shape=[4, 3, *SIZE], outputs={"y": [4, 3]}), **INPUTS)
    rows = embedder.embed(np.concatenate([PIXELS] * 3))
    np.testing.assert_allclose(rows, [[1, 0, 0.2]] * 6, rtol=1e-6)


def test_channels_last_half_precision_and_uint8_inputs_are_recognised(write: Write) -> None:
    transposed = helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])
    last = load(write([transposed, *mean_nodes("t")], ["n", *SIZE, 3]), **INPUTS)
    np.testing.assert_allclose(last.embed(PIXELS), [[1, 0, 0.2]] * 2, rtol=1e-6)
    cast = helper.make_node("Cast", ["x"], ["c"], to=TensorProto.FLOAT)
    half = load(write([cast, *mean_nodes("c")], dtype=TensorProto.FLOAT16), **INPUTS)
    np.testing.assert_allclose(half.embed(PIXELS), [[1, 0, 0.2]] * 2, rtol=1e-3)
    eight = write([cast, *mean_nodes("c")], dtype=TensorProto.UINT8)
    np.testing.assert_allclose(load(eight).embed(PIXELS), [[255, 0, 51]] * 2, rtol=1e-6)
    refuse(eight, "takes uint8 pixels: it normalises them. Remove mean and std", **INPUTS)


def test_of_several_embedding_outputs_one_is_chosen(write: Write) -> None:
    double = helper.make_node("Add", ["y", "y"], ["z"])
    path = write([*mean_nodes(), double], outputs={"y": ["n", 3], "z": ["n", 3]})
    refuse(path, r"expected exactly one of shape \[batch, D\]. Choose one: --output y", **INPUTS)
    refuse(path, "has no output 'q'. Known: y, z", output="q", **INPUTS)
    found = load(path, output="z", **INPUTS).embed(PIXELS)
    np.testing.assert_allclose(found, [[2, 0, 0.4]] * 2, rtol=1e-6)


def test_files_that_are_not_image_models_are_refused(write: Write) -> None:
    expected = "expected one image input"
    constant = numpy_helper.from_array(np.ones((2, 3), np.float32))
    node = helper.make_node("Constant", [], ["y"], value=constant)
    refuse(write([node], ["n", 7]), rf"takes x tensor\(float\) \['n', 7\]; {expected}")
    refuse(write([node], dtype=TensorProto.INT64), rf"takes x tensor\(int64\) .*{expected}")
    path = write([node])
    model = onnx.load(path)
    del model.graph.input[:]
    onnx.save(model, path)
    refuse(path, f"takes nothing; {expected}")
    refuse(write(shape=["n", 2, 3, *SIZE]), "takes clips and was not exported by reidkit")
    refuse(
        write(shape=[10**9, 3, *SIZE]), "takes batches of 1,000,000,000 images, expected at most"
    )


def test_an_output_that_is_not_one_embedding_per_image_is_refused(write: Write) -> None:
    flat = numpy_helper.from_array(np.array([1, -1], np.int64), "shape")
    joined = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    path = write(joined, ["n", 3, *SIZE], outputs={"y": ["n", "d"]}, initializers=[flat])
    embedder = load(path, **INPUTS)  # with one image its output is right
    expected = r"output y is float32 \[1, 192\] for 2 images, expected one embedding per image"
    with pytest.raises(CheckpointError, match=expected):
        embedder.embed(PIXELS)
    maps = write([helper.make_node("Relu", ["x"], ["y"])], outputs={"y": ["n", 3, *SIZE]})
    refuse(maps, r"output y is float32 \[1, 3, 8, 4\] for 1 images", **INPUTS)


def test_embeddings_whose_length_depends_on_the_batch_are_refused(write: Write) -> None:
    nodes = [  # y = x's mean, repeated as often as there are images
        *mean_nodes()[:1],
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Shape", ["x"], ["n"], start=0, end=1),
        helper.make_node("Concat", ["one", "n"], ["times"], axis=0),
        helper.make_node("Tile", ["f", "times"], ["y"]),
    ]
    one = numpy_helper.from_array(np.array([1], np.int64), "one")
    embedder = load(write(nodes, outputs={"y": ["n", "d"]}, initializers=[one]), **INPUTS)
    with pytest.raises(CheckpointError, match="have 6 numbers in one batch and 3 in another"):
        embedder.embed(PIXELS)


def test_a_node_that_fails_is_named(write: Write) -> None:
    shape = numpy_helper.from_array(np.array([7, -1], np.int64), "shape")
    node = helper.make_node("Reshape", ["x", "shape"], ["y"], name="to_seven")
    path = write([node], outputs={"y": ["n", "d"]}, initializers=[shape])
    expected = (
        r"m\.onnx: ONNX Runtime failed on an input of shape \[1, 3, 8, 4\]: "
        r"Reshape node to_seven failed: The input tensor cannot be reshaped"
    )
    refuse(path, expected, **INPUTS)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "absent.bin"])
def test_weights_outside_the_models_folder_are_refused(
    write: Write, tmp_path: Path, location: str
) -> None:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3, 4])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    (tmp_path.parent / "weights.bin").write_bytes(np.ones(12, np.float32).tobytes())
    nodes = [*mean_nodes(), helper.make_node("MatMul", ["y", "w"], ["z"])]
    path = tmp_path / "m.onnx"
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, *SIZE])]
    outputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 4])]
    graph = helper.make_graph(nodes, "model", inputs, outputs, [weight])
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    path.write_bytes(model.SerializeToString())
    refuse(path, "weights.* that are missing or outside its folder", **INPUTS)


def test_a_file_that_is_not_onnx_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("not a model")
    refuse(tmp_path / "m.onnx", "it is not an ONNX file, or a damaged one")
    refuse(tmp_path / "absent.onnx", "does not exist")


# reidkit's own exports


def test_metadata_states_the_preprocessing(exported: Path) -> None:
    embedder = load(exported)
    assert embedder.preprocess == PLAIN and embedder.name == "mean (ONNX)"
    np.testing.assert_allclose(embedder.embed(PIXELS), [[1, 0, 0.2]] * 2, rtol=1e-6)
    refuse(exported, "states its own preprocessing; leave out size", size=[8, 4])
    refuse(exported, "unknown key foo. Known: channels, interpolation, mean, output", foo=1)


@pytest.mark.parametrize(
    ("changes", "red"),
    [
        ({"pixels": "0-1"}, 1.0),
        ({"pixels": "0-255"}, 255.0),
        ({"pixels": "normalised"}, (1 - 0.5) / 0.25),
        ({"assumes": {"mean": [0.2] * 3, "std": [0.4] * 3}}, (1 - 0.2) / 0.4),
    ],
)
def test_the_input_contains_what_the_metadata_says(
    write: Write, changes: dict[str, Any], red: float
) -> None:
    preprocess = {"size": list(SIZE), "mean": [0.5] * 3, "std": [0.25] * 3}
    path = write(metadata=export_metadata(preprocess=preprocess, **changes))
    assert load(path).embed(PIXELS)[0, 0] == pytest.approx(red)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ("{", "metadata is not JSON"),
        ("[" * 100_000, "metadata is not JSON"),
        ([], "metadata is list, expected a JSON object"),
        ("null", "metadata is NoneType, expected a JSON object"),
        (export_metadata(format=1), "has format 1, this reidkit reads 2. Export it again"),
        ({}, "has format None, this reidkit reads 2"),
        ({"format": 2}, "metadata: missing key arch, preprocess, outputs"),
        (export_metadata(preprocess=None), "preprocess must be a table, got None"),
        (export_metadata(preprocess={"size": [10**6, 4]}), "size must be 1 to 4096 pixels"),
        (export_metadata(preprocess={"size": "8x4"}), "preprocess.size must be a list of 2"),
        (export_metadata(preprocess={"std": [0, 1, 1]}), "std positive"),
        (export_metadata(preprocess={"std": [float("nan"), 1, 1]}), "std positive"),
        (export_metadata(frames=-1), "frames must be between 0 and 1024"),
        (export_metadata(frames=10**400), "frames"),
        (export_metadata(frames=4), "metadata says clips of 4 frames, its input has 4 dimensions"),
        (export_metadata(outputs=[]), "outputs must name at least one output"),
        (export_metadata(features_output="z"), "names the output 'z', it has y"),
        (export_metadata(pixels="0-2"), "pixels must be one of normalised, 0-1, 0-255, uint8"),
    ],
)
def test_malformed_metadata_is_refused(write: Write, metadata: Any, expected: str) -> None:
    refuse(
        write(metadata=metadata if isinstance(metadata, str) else json.dumps(metadata)), expected
    )


# Providers


def test_a_provider_that_is_not_there_is_refused_by_name(exported: Path) -> None:
    with pytest.raises(RuntimeMissing, match=r"no openvino provider, only .*onnxruntime-openvino"):
        open_session(exported, "cpu", provider="openvino")


def test_a_provider_that_does_not_run_on_the_device_is_refused() -> None:
    available = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert choose_provider("cuda:1", None, available) == ("cuda", 1)
    assert choose_provider("cuda:1", "tensorrt", available) == ("tensorrt", 1)
    assert choose_provider("cpu", None, available) == ("cpu", 0)
    with pytest.raises(ConfigError, match="provider tensorrt needs a CUDA device"):
        choose_provider("cpu", "tensorrt", available)
    with pytest.raises(ConfigError, match="provider cpu does not run on device cuda"):
        choose_provider("cuda", "cpu", available)
    with pytest.raises(ConfigError, match="unknown device 'gpu'"):
        choose_provider("gpu", None, available)


@pytest.mark.skipif(cuda_device_count() > 0, reason="has a CUDA device")
def test_a_cuda_device_that_is_not_there_is_refused(exported: Path) -> None:
    with pytest.raises(RuntimeMissing, match="device cuda: the driver found 0 CUDA devices"):
        open_session(exported, "cuda")


def test_a_provider_without_its_libraries_is_refused(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime as ort

    def session(*arguments: Any, **options: Any) -> None:
        assert not options["enable_fallback"]
        raise RuntimeError("Please install TensorRT libraries")

    available = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: available)
    monkeypatch.setattr(ort, "InferenceSession", session)
    monkeypatch.setattr(ort, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(onnx_session, "cuda_device_count", lambda: 1)
    monkeypatch.setattr(Path, "home", lambda: exported.parent)
    with pytest.raises(RuntimeMissing, match="provider tensorrt: ONNX Runtime could not load"):
        open_session(exported, "cuda", provider="tensorrt")
    assert capsys.readouterr().out == ""


def test_nodes_that_run_on_the_cpu_are_counted(exported: Path, tmp_path: Path) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = ort.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
    session.run(None, {"x": np.zeros((1, 3, *SIZE), np.float32)})
    assert cpu_nodes(session) == {"GlobalAveragePool": 1, "Flatten": 1}
    assert not list(tmp_path.glob("profile*"))


def test_threads_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="threads must be at least 1, got 0"):
        Execution(threads=0)


def test_a_mean_for_values_up_to_255_is_refused(write: Write) -> None:
    path = write(shape=["n", 3, "h", "w"])
    refuse(path, r"are for values in \[0, 1\]\. Divide those for 0 to 255", mean=(127, 127, 127))


@pytest.mark.parametrize(
    "options", [{"mode": "fast"}, {"provider": "zzz"}, {"threads": "a"}, {"precision": "fp16"}]
)
def test_impossible_executions_are_refused_by_name(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ConfigError, match=f"{name} must be"):
        Execution(**options)
