"""Checkpoints and ONNX files embed pixels through one interface."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reidkit import checkpoint
from reidkit.device import cuda_device_count
from reidkit.export.exporter import export_onnx
from reidkit.export.settings import ExportSettings
from reidkit.preprocess import Preprocess
from reidkit.registry import get_arch
from reidkit.runtime.embedder import Embedder, load_embedder
from reidkit.runtime.execution import Execution
from reidkit.runtime.onnx_runtime import OnnxEmbedder

SIZE = (64, 32)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One untrained network as a checkpoint and as an ONNX file."""
    spec = get_arch("baseline")
    config = spec.config(backbone="resnet18")
    torch.manual_seed(0)
    model = spec.build(config, num_ids=3, input_size=SIZE)
    header = checkpoint.Header(
        arch="baseline",
        arch_config=dataclasses.asdict(config),
        preprocess=Preprocess(size=SIZE),
        num_ids=3,
    )
    folder = tmp_path_factory.mktemp("embedder")
    checkpoint.save(folder / "model.safetensors", model, header)
    export_onnx(folder / "model.safetensors", folder / "model.onnx")
    return {suffix: folder / f"model.{suffix}" for suffix in ("safetensors", "onnx")}


@pytest.fixture(scope="module", params=["safetensors", "onnx"])
def embedder(models: dict[str, Path], request: pytest.FixtureRequest) -> Embedder:
    return load_embedder(models[request.param], device="cpu")


def random_pixels(batch: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (batch, *SIZE, 3), np.uint8)


def test_an_embedding_is_that_of_the_normalised_image(
    models: dict[str, Path], embedder: Embedder
) -> None:
    model, header = checkpoint.load(models["safetensors"])
    pixels = random_pixels(5)
    with torch.inference_mode():
        expected = model.embed(header.preprocess.normalise(torch.from_numpy(pixels))).numpy()
    found = embedder.embed(pixels)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_an_embedding_does_not_depend_on_earlier_batches(embedder: Embedder) -> None:
    pixels = random_pixels(6)
    first = embedder.embed(pixels[:2])
    embedder.embed(pixels)  # larger: what it leaves in reused memory must not be seen
    assert (embedder.embed(pixels[:2]) == first).all()


def test_no_images_give_no_rows_of_the_models_dimension(embedder: Embedder) -> None:
    found = embedder.embed(random_pixels(0))
    assert found.shape == (0, 512) and found.dtype == np.float32


def cosine(found: np.ndarray, expected: np.ndarray) -> float:
    """The lowest one between rows."""
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((found * expected).sum(1) / norms).min())


@pytest.mark.gpu
@pytest.mark.skipif(not cuda_device_count(), reason="no CUDA device")
@pytest.mark.parametrize("suffix", ["safetensors", "onnx"])
def test_a_gpu_gives_the_embeddings_of_the_cpu_without_nodes_on_the_cpu(
    models: dict[str, Path], suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = random_pixels(5)
    expected = load_embedder(models[suffix], device="cpu").embed(pixels)
    found = load_embedder(models[suffix], device="cuda").embed(pixels)
    assert cosine(found, expected) > 0.999999  # TF32 would be below
    assert not [m for m in caplog.messages if "run on the CPU" in m]


@pytest.mark.gpu
@pytest.mark.skipif(not cuda_device_count(), reason="no CUDA device")
@pytest.mark.parametrize(
    ("mode", "settings"),
    [
        ("latency", ExportSettings(batch=4)),  # a CUDA graph
        ("throughput", ExportSettings(batch=4)),
        ("throughput", ExportSettings(pixels="uint8-nhwc")),
    ],
)
def test_threads_share_a_session_on_a_gpu(
    models: dict[str, Path], tmp_path: Path, mode: Any, settings: ExportSettings
) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(models["safetensors"], path, settings)
    on_gpu = load_embedder(path, device="cuda", execution=Execution(mode=mode))
    assert isinstance(on_gpu, OnnxEmbedder) and on_gpu.binding is not None
    assert on_gpu.binding.graph == (mode == "latency")
    batches = [np.roll(random_pixels(1 + k % 7), k) for k in range(24)]
    expected = [load_embedder(models["onnx"], device="cpu").embed(batch) for batch in batches[:7]]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(on_gpu.embed, batches))
    assert min(map(cosine, found, expected)) > 0.9999
    again = [on_gpu.embed(batch) for batch in batches]
    assert min(map(cosine, found, again)) > 0.9999
