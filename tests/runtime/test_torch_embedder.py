"""PyTorch networks in other precisions are compared with plain float32."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reidkit.errors import ConfigError
from reidkit.preprocess import Preprocess
from reidkit.runtime import torch_embedder
from reidkit.runtime.execution import Execution
from reidkit.runtime.torch_embedder import TorchEmbedder

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)


class Convolution(nn.Module):
    embedding_dim = 8

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3)
        self.calls = 0

    def embed(self, images: Tensor) -> Tensor:
        self.calls += 1
        return self.conv(images).mean((2, 3))


class ClipConvolution(Convolution):
    """The mean over the frames of clips [B, T, 3, H, W]."""

    def embed(self, images: Tensor) -> Tensor:
        return super().embed(images.flatten(0, 1)).unflatten(0, images.shape[:2]).mean(1)


def embedder(execution: Execution | None, network: type = Convolution) -> TorchEmbedder:
    model: Any = network()
    preprocess = Preprocess(size=(64, 64))
    return TorchEmbedder(
        model, preprocess=preprocess, device=torch.device("cpu"), execution=execution
    )


@pytest.fixture
def native_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_embedder, "has_native_bf16", lambda device: True)


def test_an_execution_changes_float32_embeddings_by_less_than_a_hundred_thousandth() -> None:
    """Contiguous instead of channels-last images."""
    rows = [embedder(execution).embed(PIXELS) for execution in (None, Execution())]
    unit = [row / np.linalg.norm(row, axis=1, keepdims=True) for row in rows]
    assert np.abs(unit[0] - unit[1]).max() < 1e-5


@pytest.mark.parametrize(
    ("shape", "calls"), [((8, 3), 1), ((9, 3), 2), ((20, 3), 3), ((4, 4, 3), 2), ((3, 9, 3), 3)]
)
def test_a_cpu_computes_at_most_eight_images_or_one_clip_at_once(
    shape: tuple[int, ...], calls: int
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape[:-1], 16, 16, 3), np.uint8)
    found = embedder(Execution(), Convolution if len(shape) == 2 else ClipConvolution)
    rows = found.embed(pixels)
    assert found.model.calls == calls
    one_by_one = [found.embed(pixels[k : k + 1]) for k in range(len(pixels))]
    assert np.allclose(rows, np.concatenate(one_by_one), atol=1e-6)


class Tf32(Convolution):
    """Keeps whether cuDNN may compute its convolution in TF32."""

    def embed(self, images: Tensor) -> Tensor:
        self.tf32 = torch.backends.cudnn.allow_tf32
        return super().embed(images)


@pytest.mark.parametrize("allowed", [False, True])
def test_float32_is_not_tf32_and_the_processs_setting_returns(
    monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
    found = embedder(None, Tf32)
    found.embed(PIXELS)
    assert found.model.tf32 is False
    assert torch.backends.cudnn.allow_tf32 is allowed


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="PyTorch before 2.9")
def test_a_float32_precision_that_the_process_has_set_stays() -> None:
    conv: Any = torch.backends.cudnn.conv
    earlier = conv.fp32_precision
    conv.fp32_precision = "ieee"
    try:
        assert embedder(None).embed(PIXELS).shape == (4, 8)
        assert conv.fp32_precision == "ieee"
    finally:
        conv.fp32_precision = earlier


@pytest.mark.usefixtures("native_bf16")
def test_bf16_is_compared_with_float32_once() -> None:
    found = embedder(Execution(precision="bf16"))
    rows = [found.embed(PIXELS) for _ in range(2)]
    assert found.model.calls == 4  # two for the first batch's comparison
    plain = embedder(None).embed(PIXELS)
    assert rows[0].dtype == np.float32 and not (rows[0] == plain).all()
    np.testing.assert_allclose(rows[0], plain, atol=0.02)
    assert "bf16" in found.description


@pytest.mark.usefixtures("native_bf16")
def test_bf16_that_changes_the_embeddings_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(images: Tensor) -> Tensor:
        sign = -1 if torch.is_autocast_enabled("cpu") else 1
        return sign * images.mean((2, 3))

    found = embedder(Execution(precision="bf16"))
    monkeypatch.setattr(found.model, "embed", wrong)
    expected = r"--precision bf16: .* cosine -1\.0000 with plain float32's, expected at least 0\.99"
    with pytest.raises(ConfigError, match=expected):
        found.embed(PIXELS)


def test_bf16_needs_a_processor_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_embedder, "has_native_bf16", lambda device: False)
    with pytest.raises(ConfigError, match="cpu has no bf16 instructions"):
        embedder(Execution(precision="bf16"))


class Mean(nn.Module):
    embedding_dim = 3

    def embed(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


def test_a_network_is_compiled_once_for_all_batch_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """By torch.compile without its C++ compiler, which takes 15 s (benchmarks/precision.py)."""
    compile_eager = functools.partial(torch.compile, backend="eager")
    monkeypatch.setattr(torch, "compile", compile_eager)
    torch._dynamo.reset()
    counts = torch._dynamo.utils.counters
    counts.clear()
    model: Any = Mean()
    plain, compiled = (
        TorchEmbedder(
            model,
            preprocess=Preprocess(size=(64, 64)),
            device=torch.device("cpu"),
            execution=Execution(compile=compile),
        )
        for compile in (False, True)
    )
    for batch in (1, 4, 3, 1):
        expected = plain.embed(PIXELS[:batch])
        np.testing.assert_allclose(compiled.embed(PIXELS[:batch]), expected, rtol=1e-5, atol=1e-6)
    assert counts["stats"]["unique_graphs"] == 1
    assert "compiled" in compiled.description
