"""Sessions that run in buffers of their device: here the CPU, by the same calls as CUDA."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_models import SIZE, export_metadata, mean_nodes
from PIL import Image

from reidkit.errors import CheckpointError
from reidkit.runtime import onnx_runtime
from reidkit.runtime.execution import Execution
from reidkit.runtime.image_files import default_batch, embed_images
from reidkit.runtime.onnx_binding import MAX_SHAPES, DeviceBinding
from reidkit.runtime.onnx_runtime import OnnxEmbedder
from reidkit.runtime.onnx_session import open_session

Write = Callable[..., Path]
LATENCY = Execution(mode="latency", threads=1)


def pixels(batch: int) -> np.ndarray:
    return np.random.default_rng(batch).integers(0, 256, (batch, *SIZE, 3), np.uint8)


def load(path: Path, execution: Execution = LATENCY, **inputs: Any) -> OnnxEmbedder:
    return OnnxEmbedder(path, device="cpu", inputs=inputs, execution=execution)


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> Callable[..., OnnxEmbedder]:
    """Loads a model that runs in buffers on the CPU as those of CUDA run on their device."""

    def call(path: Path, *arguments: Any, **inputs: Any) -> OnnxEmbedder:
        with monkeypatch.context() as patch:
            patch.setattr(onnx_runtime, "BOUND_DEVICES", {"cpu": "cpu"})
            return load(path, *arguments, **inputs)

    return call


class RecordedSession:
    """A session that keeps what its runs and its bindings were."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.bindings = 0
        self.graphs: list[str] = []

    def io_binding(self) -> Any:
        self.bindings += 1
        return self.session.io_binding()

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        try:
            self.graphs.append(options.get_run_config_entry("gpu_graph_id"))
        except RuntimeError:  # the options have no such entry
            self.graphs.append("none")
        self.session.run_with_iobinding(binding, options)


# Embeddings


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8])
def test_embeddings_are_those_of_a_plain_session(
    write: Write, bound: Callable[..., OnnxEmbedder], dtype: int
) -> None:
    cast = helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT)
    path = write([cast, *mean_nodes("f")], dtype=dtype)
    plain, reusing = load(path, size=SIZE), bound(path, size=SIZE)
    assert plain.binding is None and reusing.binding is not None
    for batch in (1, 5, 2, 5, 8, 1):  # larger, smaller and equal to those before
        np.testing.assert_array_equal(reusing.embed(pixels(batch)), plain.embed(pixels(batch)))


def test_embeddings_stay_as_they_are_when_the_buffer_is_used_again(
    exported: Path, bound: Callable[..., OnnxEmbedder]
) -> None:
    reusing = bound(exported)
    first = reusing.embed(pixels(4))
    before = first.copy()
    reusing.embed(255 - pixels(4))
    np.testing.assert_array_equal(first, before)


def test_extraction_decodes_for_two_callers_of_one_session(
    exported: Path, bound: Callable[..., OnnxEmbedder], tmp_path: Path
) -> None:
    for k in range(50):
        Image.new("RGB", (5, 9), (k, 0, 255)).save(tmp_path / f"{k:02d}.png")
    paths = sorted(tmp_path.glob("*.png"))
    reusing = bound(exported, Execution(mode="throughput", threads=1))
    assert reusing.concurrency == 1  # the number of cores, on the CPU
    reusing.concurrency = 2
    assert default_batch(reusing) == 64
    expected = embed_images(load(exported), paths)
    for batch in (3, 16, None):
        assert (embed_images(reusing, paths, batch=batch) == expected).all()


# Errors


def test_an_output_that_is_not_a_tensor_is_refused_as_without_buffers(
    write: Write, bound: Callable[..., OnnxEmbedder]
) -> None:
    nodes = [*mean_nodes(), helper.make_node("SequenceConstruct", ["y"], ["z"])]
    path = write(nodes, metadata=export_metadata())
    model = onnx.load(path)
    del model.graph.output[:]
    kind = helper.make_sequence_type_proto(
        helper.make_tensor_type_proto(TensorProto.FLOAT, ["n", 3])
    )
    model.graph.output.append(helper.make_value_info("z", kind))
    del model.metadata_props[:]
    onnx.save(model, path)
    for way in (load, bound):
        with pytest.raises(CheckpointError, match="expected one embedding per image"):
            way(path, size=SIZE, output="z")


def test_a_run_that_fails_is_reported_and_the_next_one_works(exported: Path) -> None:
    session = open_session(exported, "cpu")
    binding = DeviceBinding(session, "x", "y", device="cpu")
    with pytest.raises(Exception, match="Invalid rank"):
        binding.run(np.zeros((1, 3), np.float32))
    assert binding.run(np.ones((1, 3, *SIZE), np.float32)).tolist() == [[1, 1, 1]]


def test_a_device_without_memory_is_an_error_of_the_model(
    exported: Path, bound: Callable[..., OnnxEmbedder], monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    def full(*arguments: Any) -> None:
        raise RuntimeError("BFCArena: Failed to allocate memory for requested buffer")

    found = bound(exported)
    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type", full)
    message = r"m\.onnx: ONNX Runtime failed on an input of shape \[16, .*: .*Failed to allocate"
    with pytest.raises(CheckpointError, match=message):
        found.embed(pixels(12))


def test_a_provider_that_fails_is_not_replaced_by_another(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from onnxruntime.capi.onnxruntime_pybind11_state import EPFail

    session = open_session(exported, "cpu")

    class Failing:
        def __init__(self, whole: Any) -> None:
            self.whole = whole

        def __getattr__(self, name: str) -> Any:
            return getattr(self.whole, name)

        def run(self, *arguments: Any) -> None:
            raise EPFail("no memory on the device")

    monkeypatch.setattr(session, "_sess", Failing(session._sess))
    monkeypatch.setattr(session, "set_providers", lambda providers: pytest.fail("fell back"))
    with pytest.raises(EPFail):
        session.run(["y"], {"x": np.zeros((1, 3, *SIZE), np.float32)})
    assert capsys.readouterr().out == ""


# Buffers


def test_buffers_are_bound_once_for_each_shape(exported: Path) -> None:
    session = RecordedSession(open_session(exported, "cpu"))
    binding = DeviceBinding(session, "x", "y", device="cpu")
    for batch in (1, 2, 1, 1, 2):
        binding.run(np.zeros((batch, 3, *SIZE), np.float32))
    assert session.bindings == 2
    assert session.graphs == ["none"] * 5


def test_the_shapes_used_least_recently_lose_their_buffers(exported: Path) -> None:
    session = RecordedSession(open_session(exported, "cpu"))
    binding = DeviceBinding(session, "x", "y", device="cpu")

    def run(batch: int) -> int:
        binding.run(np.zeros((batch, 3, *SIZE), np.float32))
        return session.bindings

    for batch in range(1, MAX_SHAPES + 1):
        assert run(batch) == batch
    run(1)  # so that 2 is the least recent one
    assert run(MAX_SHAPES + 1) == MAX_SHAPES + 1
    assert run(1) == MAX_SHAPES + 1
    assert run(2) == MAX_SHAPES + 2


def test_no_more_threads_run_at_once_than_there_are_callers(exported: Path) -> None:
    running, most = 0, 0
    lock = threading.Lock()

    class Slow(RecordedSession):
        def run_with_iobinding(self, binding: Any, options: Any) -> None:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.02)
            with lock:
                running -= 1
            self.session.run_with_iobinding(binding, options)

    session = Slow(open_session(exported, "cpu"))
    binding = DeviceBinding(session, "x", "y", device="cpu", callers=2)
    found: dict[int, Any] = {}

    def work(value: int) -> None:
        found[value] = binding.run(np.full((1, 3, *SIZE), value, np.float32))

    threads = [threading.Thread(target=work, args=(value,)) for value in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2 and session.bindings <= 2
    assert {value: rows.tolist() for value, rows in found.items()} == {
        value: [[value] * 3] for value in range(6)
    }


# CUDA graphs


def test_a_graph_is_captured_after_a_first_run_and_never_for_other_buffers(exported: Path) -> None:
    session = RecordedSession(open_session(exported, "cpu"))
    binding = DeviceBinding(session, "x", "y", device="cpu", graph=True)
    for batch in (1, 1, 1, 2, 2, 1):
        found = binding.run(np.full((batch, 3, *SIZE), batch, np.float32))
        assert found.tolist() == [[batch] * 3] * batch
    assert session.graphs == ["-1", "0", "0", "-1", "1", "0"]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Callable[..., OnnxEmbedder]:
    """Loads a model as the CUDA provider would, with sessions on the CPU; `graph_session` opens
    those for CUDA graphs."""

    def call(
        path: Path,
        *,
        mode: Any = "latency",
        nodes: Mapping[str, int] = {},
        graph_session: Callable[..., Any] = open_session,
    ) -> OnnxEmbedder:
        def session(path: Path, device: str, *, cuda_graph: bool = False, **options: Any) -> Any:
            return (graph_session if cuda_graph else open_session)(path, "cpu")

        with monkeypatch.context() as patch:
            patch.setattr(onnx_runtime, "open_session", session)
            patch.setattr(onnx_runtime, "_provider_of", lambda session: "cuda")
            patch.setattr(onnx_runtime, "BOUND_DEVICES", {"cuda": "cpu"})
            patch.setattr(onnx_runtime, "cpu_nodes", lambda session: Counter(nodes))
            return load(path, Execution(mode=mode, threads=1))

    return call


def fixed_batch(write: Write) -> Path:
    return write(shape=[4, 3, *SIZE], outputs={"y": [4, 3]}, metadata=export_metadata())


def test_a_file_of_fixed_batch_size_is_a_cuda_graph_in_latency_mode(
    write: Write, cuda: Callable[..., OnnxEmbedder]
) -> None:
    path = fixed_batch(write)
    expected = load(path).embed(pixels(6))
    graph, throughput = cuda(path), cuda(path, mode="throughput")
    assert "CUDA, CUDA graph of 4, fp32" in graph.description and graph.concurrency == 1
    assert "graph" not in throughput.description and throughput.concurrency == 2
    np.testing.assert_array_equal(graph.embed(pixels(6)), expected)
    np.testing.assert_array_equal(throughput.embed(pixels(6)), expected)
    assert "graph" not in cuda(write(metadata=export_metadata())).description


def test_a_file_with_nodes_on_the_cpu_is_no_cuda_graph(
    write: Write, cuda: Callable[..., OnnxEmbedder], caplog: pytest.LogCaptureFixture
) -> None:
    found = cuda(fixed_batch(write), nodes={"Flatten": 1})
    assert "graph" not in found.description
    assert "1 nodes run on the CPU, not in the CUDA provider: 1 Flatten" in caplog.text


def refuse_graphs(path: Path, device: str) -> Any:
    raise CheckpointError(f"{path}: ONNX Runtime cannot load it: it has control flow")


def test_what_cannot_be_captured_runs_without_a_cuda_graph(
    write: Write, cuda: Callable[..., OnnxEmbedder], caplog: pytest.LogCaptureFixture
) -> None:
    path = fixed_batch(write)
    with caplog.at_level(logging.INFO):
        found = cuda(path, graph_session=refuse_graphs)
    assert "graph" not in found.description
    assert f"no CUDA graph: {path}: ONNX Runtime cannot load it" in caplog.text
    np.testing.assert_array_equal(found.embed(pixels(4)), load(path).embed(pixels(4)))


def test_a_cuda_graph_with_other_embeddings_is_not_used(
    write: Write, cuda: Callable[..., OnnxEmbedder], caplog: pytest.LogCaptureFixture
) -> None:
    path = fixed_batch(write)
    expected = load(path).embed(pixels(4))

    def other(path: Path, device: str) -> Any:
        pool = helper.make_node("GlobalAveragePool", ["x"], ["p"])
        flat = helper.make_node("Flatten", ["p"], ["m"])
        negated = [pool, flat, helper.make_node("Neg", ["m"], ["y"])]
        write(negated, [4, 3, *SIZE], outputs={"y": [4, 3]}, metadata=export_metadata())
        return open_session(path, device)

    with caplog.at_level(logging.INFO):
        found = cuda(path, graph_session=other)
    assert "cosine -1.0000 with the embedding without it" in caplog.text
    np.testing.assert_array_equal(found.embed(pixels(4)), expected)
