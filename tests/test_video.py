"""Embeddings of tracklets: clips, averages, batches, ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from reidkit import checkpoint
from reidkit.choices import ClipRule
from reidkit.export.exporter import export_onnx
from reidkit.preprocess import Preprocess
from reidkit.runtime.embedder import Embedder, load_embedder
from reidkit.runtime.image_files import embed_images, embed_tracklets


class Recorder:
    """An embedder whose embedding of a clip is its mean grey level cubed; records the shapes of its
    inputs."""

    name = "recorder"
    source_hash = ""
    concurrency = 1
    preprocess = Preprocess(size=(4, 2), mean=(0, 0, 0), std=(1, 1, 1))

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.shapes: list[tuple[int, ...]] = []

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.shapes.append(tuple(pixels.shape[:-3]))
        grey = pixels.mean((-3, -2, -1), dtype=np.float32)
        cubed: NDArray[np.float32] = (grey.mean(1) if self.frames else grey) ** 3
        return np.repeat(cubed[:, None], 2, axis=1)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """70 images; image k has grey level k."""
    root = tmp_path_factory.mktemp("frames")
    for k in range(70):
        Image.new("RGB", (2, 4), (k, k, k)).save(root / f"{k:02d}.png")
    return sorted(root.iterdir())


LENGTHS = (1, 7, 33, 2, 8, 3)


def tracklets(frames: list[Path]) -> list[list[Path]]:
    return [frames[start : start + n] for start, n in enumerate(LENGTHS)]


def by_hand(start: int, n: int, rule: str) -> float:
    """The mean over clips of 4, computed separately."""
    values = [float(k) for k in range(start, start + n)]
    if rule == "ap3d":
        parts = [values[k : k + 32] for k in range(0, n, 32)]
        return sum(np.mean(p) ** 3 * len(p) for p in parts) / n
    if rule == "bicnet":
        while len(values) % 4:
            values.append(values[len(values) - n])
    parts = [values[k : k + 4] for k in range(0, len(values), 4)]
    parts = [(p * 4)[:4] for p in parts]
    return float(np.mean([np.mean(p) ** 3 for p in parts]))


@pytest.mark.parametrize("batch", [1, 4, 10, 64])
@pytest.mark.parametrize("rule", ["tclnet", "bicnet", "ap3d"])
def test_the_embedding_of_a_tracklet_is_the_mean_over_its_clips_for_any_batch_size(
    frames: list[Path], rule: ClipRule, batch: int
) -> None:
    found = embed_tracklets(Recorder(4), tracklets(frames), clips=rule, batch=batch)
    expected = [by_hand(start, n, rule) for start, n in enumerate(LENGTHS)]
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5, atol=1e-4)


def test_clips_of_several_tracklets_share_batches_of_the_given_size(frames: list[Path]) -> None:
    recorder = Recorder(4)
    embed_tracklets(recorder, tracklets(frames), batch=16)
    clips = sum(-(-n // 4) for n in LENGTHS)
    assert recorder.shapes == [(4, 4)] * (clips // 4) + [(clips % 4, 4)] * (clips % 4 > 0)
    short = Recorder(4)
    embed_tracklets(short, tracklets(frames), clips="ap3d", batch=40)
    assert max(b * t for b, t in short.shapes) <= 40


def test_an_image_network_embeds_every_frame_once(frames: list[Path]) -> None:
    recorder = Recorder(0)
    found = embed_tracklets(recorder, [frames[10:13]], clips="ap3d")
    assert recorder.shapes == [(3,)]
    assert found[0, 0] == pytest.approx(np.mean([10**3, 11**3, 12**3]), rel=1e-5)


def test_a_video_network_embeds_an_image_as_a_tracklet_of_one_frame(frames: list[Path]) -> None:
    single = embed_images(Recorder(4), frames[5:7])
    mixed = embed_tracklets(Recorder(4), [frames[5:6], frames[6:7], frames[:9]])
    np.testing.assert_array_equal(single, mixed[:2])


def test_flip_adds_the_mirrored_clips(frames: list[Path]) -> None:
    plain, flipped = (embed_tracklets(Recorder(4), [frames[:9]], flip=f) for f in (False, True))
    np.testing.assert_allclose(flipped, 2 * plain, rtol=1e-6)


@pytest.fixture(scope="module")
def video_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small iaunet for clips of 2 frames, with batch norm statistics as after some training."""
    options = {"backbone": "resnet18", "stages": [2]}
    header = checkpoint.Header(
        arch="iaunet",
        arch_config=options,
        preprocess=Preprocess(size=(32, 16)),
        num_ids=3,
        frames=2,
        stride=8,
    )
    torch.manual_seed(0)
    model = checkpoint.build(header)
    model.train()
    model(torch.randn(4, 2, 3, 32, 16))
    path = tmp_path_factory.mktemp("video") / "model.safetensors"
    checkpoint.save(path, model, header)
    return path


def test_an_average_of_embeddings_is_the_embedding_of_the_average(
    video_model: Path, frames: list[Path]
) -> None:
    """In evaluation mode the head is affine, so averaging before or after it is the same."""
    embedder = load_embedder(video_model, device="cpu")
    found = embed_tracklets(embedder, [frames[:6]])
    model, header = checkpoint.load(video_model)
    pixels = np.stack([header.preprocess.pixels(Image.open(p).convert("RGB")) for p in frames[:6]])
    clips = header.preprocess.normalise(torch.from_numpy(pixels)).reshape(3, 2, 3, 32, 16)
    with torch.inference_mode():
        pooled = model.trunk(clips).maps[-1].mean((1, 3, 4)).mean(0, keepdim=True)  # type: ignore[operator, union-attr]
        expected = model.head.embed(pooled)  # type: ignore[operator, union-attr]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_an_exported_video_network_states_its_frames_and_gives_the_same_embeddings(
    video_model: Path, frames: list[Path], tmp_path: Path
) -> None:
    target = tmp_path / "model.onnx"
    parities = export_onnx(video_model, target).parities
    assert [(p.batch, p.frames) for p in parities] == [(1, 2), (3, 1), (8, 5)]
    assert all(p.cosine >= 0.9999 for p in parities)
    embedders: list[Embedder] = [
        load_embedder(path, device="cpu") for path in (video_model, target)
    ]
    assert [e.frames for e in embedders] == [2, 2]
    pair = [embed_tracklets(e, [frames[:9], frames[9:10]], clips="ap3d") for e in embedders]
    np.testing.assert_allclose(pair[0], pair[1], rtol=1e-3, atol=1e-4)
