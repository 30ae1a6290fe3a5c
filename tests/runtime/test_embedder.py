"""Checkpoints and ONNX files embed pixels through one interface."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from reidkit import checkpoint
from reidkit.device import cuda_device_count
from reidkit.export import export_onnx
from reidkit.preprocess import Preprocess
from reidkit.registry import get_arch
from reidkit.runtime.embedder import Embedder, load_embedder

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


@pytest.mark.gpu
@pytest.mark.skipif(not cuda_device_count(), reason="no CUDA device")
@pytest.mark.parametrize("suffix", ["safetensors", "onnx"])
def test_a_gpu_gives_the_embeddings_of_the_cpu_without_nodes_on_the_cpu(
    models: dict[str, Path], suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = random_pixels(5)
    expected = load_embedder(models[suffix], device="cpu").embed(pixels)
    found = load_embedder(models[suffix], device="cuda").embed(pixels)
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1)
    assert (cosine / np.linalg.norm(expected, axis=1)).min() > 0.9999
    assert not [m for m in caplog.messages if "run on the CPU" in m]
