"""`reidkit.runtime.Runtime`: embeddings of crops in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper
from onnx_models import SIZE, export_metadata
from PIL import Image

import reidkit
from reidkit.errors import ConfigError, DataError, RuntimeMissing
from reidkit.preprocess import Preprocess
from reidkit.runtime import Runtime

RED = np.zeros((20, 10, 3), np.uint8) + np.array([255, 0, 51], np.uint8)


@pytest.fixture
def runtime(exported: Path) -> Runtime:
    """Its embedding is the mean of each channel, in [0, 1]."""
    return Runtime(exported, device="cpu", threads=2)


def colours(runtime: Runtime, images: object, **options: object) -> list[list[float]]:
    found = runtime.embed(images, normalise=False, **options)  # type: ignore[arg-type]
    return [[round(value, 3) for value in row] for row in found.tolist()]


WITHOUT_TORCH = """
import sys
from pathlib import Path
import numpy as np
from reidkit.runtime import Runtime
from reidkit.runtime.extraction import extract_images

import reidkit
runtime = reidkit.load(sys.argv[1], device="cpu")
assert isinstance(runtime, Runtime)
assert runtime.embed([np.zeros((20, 10, 3), np.uint8)]).shape == (1, 3)
assert extract_images(runtime, [[Path(sys.argv[2])]]).features.shape == (1, 3)
print([name for name in ("torch", "torchvision", "typer") if name in sys.modules])
"""


def test_an_onnx_file_runs_without_torch(exported: Path, tmp_path: Path) -> None:
    Image.fromarray(RED).save(tmp_path / "red.png")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, exported, tmp_path / "red.png"],
        env={**os.environ, "PYTHONPATH": str(Path(reidkit.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_crops_are_arrays_pillow_images_and_files(runtime: Runtime, tmp_path: Path) -> None:
    Image.fromarray(RED).save(tmp_path / "red.png")
    expected = [1.0, 0.0, 0.2]
    sources = [RED, Image.fromarray(RED), tmp_path / "red.png", str(tmp_path / "red.png")]
    assert colours(runtime, sources) == [expected] * 4
    assert colours(runtime, RED) == colours(runtime, tmp_path / "red.png") == [expected]
    assert colours(runtime, np.stack([RED] * 3)) == [expected] * 3


@pytest.mark.parametrize("channels", ["RGB", "gbr", None])
def test_unknown_orders_of_channels_are_refused(runtime: Runtime, channels: Any) -> None:
    with pytest.raises(ConfigError, match="expected 'rgb' or 'bgr'"):
        runtime.embed([], channels=channels)


def test_channels_describe_arrays_only(runtime: Runtime) -> None:
    bgr = np.ascontiguousarray(RED[..., ::-1])
    found = colours(runtime, [bgr, Image.fromarray(RED)], channels="bgr")
    assert found == [[1.0, 0.0, 0.2]] * 2


def test_no_crops_give_no_rows(runtime: Runtime) -> None:
    assert runtime.embed([]).shape == (0, 3)
    assert runtime.embed(RED, boxes=[]).shape == (0, 3)
    assert runtime.embed(RED, boxes=np.empty((0, 4))).shape == (0, 3)


def test_embeddings_are_l2_normalised_unless_asked_otherwise(runtime: Runtime) -> None:
    found = runtime.embed([RED, RED // 2])
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)


def test_boxes_are_clipped_to_the_frame(runtime: Runtime) -> None:
    frame = np.zeros((100, 60, 3), np.uint8)
    frame[10:30, 20:30] = RED
    found = colours(runtime, frame, boxes=[[20, 10, 30, 30], [-50, -5, 10, 10], [40, 90, 99, 999]])
    assert found == [[1.0, 0.0, 0.2], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    bgr = frame[..., ::-1]
    assert colours(runtime, bgr, boxes=[[20, 10, 30, 30]], channels="bgr") == [[1.0, 0.0, 0.2]]
    whole = Image.fromarray(frame)
    assert colours(runtime, whole, boxes=[[20, 10, 30, 30]], channels="bgr") == [[1.0, 0.0, 0.2]]


@pytest.mark.parametrize("box", [[30, 10, 20, 30], [70, 0, 80, 9], [5, 5, 5.2, 9]])
def test_an_empty_box_is_refused_by_its_index(runtime: Runtime, box: list[float]) -> None:
    frame = np.zeros((100, 60, 3), np.uint8)
    with pytest.raises(DataError, match=r"boxes\[1\] = .* is empty in a frame 60 pixels wide"):
        runtime.embed(frame, boxes=[[0, 0, 9, 9], box])


RED_TENSOR = torch.from_numpy(RED).permute(2, 0, 1)


def test_tensors_have_their_channels_first(runtime: Runtime) -> None:
    expected = [1.0, 0.0, 0.2]
    assert colours(runtime, RED_TENSOR) == [expected]
    assert colours(runtime, RED_TENSOR.flip(0), channels="bgr") == [expected]
    assert colours(runtime, RED_TENSOR.expand(3, -1, -1, -1)) == [expected] * 3
    assert colours(runtime, [RED_TENSOR, RED, RED_TENSOR[:, :9]]) == [expected] * 3
    assert runtime.embed(RED_TENSOR.expand(3, -1, -1, -1)[:0]).shape == (0, 3)
    box = torch.tensor([[0.0, 0.0, 5.0, 5.0]], requires_grad=True)
    assert colours(runtime, RED_TENSOR, boxes=box) == [expected]
    assert colours(runtime, RED_TENSOR.flip(0), boxes=box, channels="bgr") == [expected]


def test_crops_of_one_list_may_differ_in_size(runtime: Runtime) -> None:
    crops = [RED, RED[:7], RED[:, :3], RED[:1, :1]]
    assert colours(runtime, crops) == [[1.0, 0.0, 0.2]] * 4
    assert colours(runtime, tuple(crops)) == [[1.0, 0.0, 0.2]] * 4


@pytest.mark.parametrize(
    ("crop", "found"),
    [
        (RED / 255, r"float64 \[20, 10, 3\], expected uint8 \[H, W, 3\].*np.rint\(image \* 255\)"),
        (RED.astype(np.float32), r"float32 \[20, 10, 3\], expected uint8.*np.rint\(image\)"),
        (RED.transpose(2, 0, 1), r"uint8 \[3, 20, 10\].*: image.transpose\(1, 2, 0\)"),
        (RED[..., 0], r"uint8 \[20, 10\].*: PIL.Image.fromarray\(image\)"),
        (RED[..., :1], r"uint8 \[20, 10, 1\].*: PIL.Image.fromarray\(image\[..., 0\]\)"),
        (np.zeros((20, 10, 4), np.uint8), r"uint8 \[20, 10, 4\].*: PIL.Image.fromarray\(image\)"),
        (RED[:0], r"uint8 \[0, 10, 3\], expected uint8 \[H, W, 3\]$"),
        (np.array([None]), r"object \[1\], expected uint8 \[H, W, 3\]$"),
        (RED_TENSOR / 255, r"a tensor float32 \[3, 20, 10\], expected uint8 \[3, H, W\].*\* 255"),
        (torch.from_numpy(RED), r"a tensor uint8 \[20, 10, 3\].*: image.permute\(2, 0, 1\)"),
        (RED_TENSOR[0], r"a tensor uint8 \[20, 10\], expected uint8 \[3, H, W\]$"),
        (None, "a NoneType, expected a path, a Pillow image, an array"),
        (b"jpeg", "a bytes, expected a path"),
    ],
)
def test_what_is_not_an_image_is_refused_by_its_index(
    runtime: Runtime, crop: object, found: str
) -> None:
    with pytest.raises(DataError, match=rf"^images\[17\]: found {found}"):
        runtime.embed([*[RED] * 17, crop])  # type: ignore[list-item]  # that is the test


def test_the_conversions_that_messages_advise_give_the_image(runtime: Runtime) -> None:
    expected = runtime.embed(RED)
    for image in (RED / 255, RED.astype(np.float32), RED.transpose(2, 0, 1), RED_TENSOR / 255):
        with pytest.raises(DataError) as refused:
            runtime.embed(image)
        advice = str(refused.value).partition(": ")[2].rpartition(": ")[2]
        converted = eval(advice, {"image": image, "np": np, "torch": torch})
        np.testing.assert_array_equal(runtime.embed(converted), expected)


def test_clips_are_refused_by_a_network_that_takes_images(runtime: Runtime) -> None:
    message = r"images\[1\] is a sequence of 2, but mean \(ONNX\) embeds images, not clips"
    for clip in ([RED, RED], np.stack([RED, RED])):
        with pytest.raises(DataError, match=message):
            runtime.embed([RED, clip])


def test_a_network_that_takes_clips_takes_sequences_of_frames(write: Callable[..., Path]) -> None:
    mean = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 3, 4], keepdims=0)
    path = write([mean], ["n", "t", 3, *SIZE], metadata=export_metadata(frames=2))
    runtime = Runtime(path, device="cpu")
    assert repr(runtime) == "Runtime(mean (ONNX), 3-d, clips of 2, 8x4, cpu)"
    half = [0.5, 0.0, 0.1]  # between red and black
    black = np.zeros_like(RED)
    arrays = np.stack([RED, black])
    tensors = torch.from_numpy(arrays).permute(0, 3, 1, 2)
    for clips in (
        [[RED, black[:9]], [Image.fromarray(black), RED_TENSOR]],
        [arrays, tensors],
        np.stack([arrays, arrays]),
        torch.stack([tensors, tensors]),
    ):
        np.testing.assert_allclose(colours(runtime, clips), [half, half], atol=1e-3)
    assert colours(runtime, RED) == [[1.0, 0.0, 0.2]]
    with pytest.raises(DataError, match=r"found clips of \[1, 2\] frames in one batch"):
        runtime.embed([RED, arrays])


def test_a_folder_is_refused_with_the_way_to_pass_its_files(
    runtime: Runtime, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"is a folder, expected an image.*glob\('\*.jpg'\)"):
        runtime.embed(tmp_path)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_boxes_that_are_not_finite_are_refused_as_such(runtime: Runtime, number: float) -> None:
    frame = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(DataError, match=r"boxes\[1\] = .* is not finite"):
        runtime.embed(frame, boxes=[[1, 2, 5, 9], [1, 2, number, 9]])


def test_images_without_pixels_closed_ones_and_memory_views_are_refused(runtime: Runtime) -> None:
    closed = Image.new("RGB", (4, 9))
    closed.close()
    for image, message in (
        (Image.new("RGB", (0, 5)), "found a Pillow image of 0x5 pixels"),
        (closed, "cannot read the Pillow image: Operation on closed image"),
        (memoryview(np.zeros((9, 4, 3), np.uint8)), "found a memoryview, expected a path"),
    ):
        with pytest.raises(DataError, match=message):
            runtime.embed(image)
    with pytest.raises(DataError, match="the frame: cannot read the Pillow image"):
        runtime.embed(closed, boxes=[[0, 0, 4, 4]])


def test_a_file_of_clips_of_one_length_repeats_images_and_refuses_other_lengths(
    write: Callable[..., Path],
) -> None:
    mean = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 3, 4], keepdims=0)
    path = write([mean], ["n", 4, 3, *SIZE], metadata=export_metadata(frames=4))
    runtime = Runtime(path, device="cpu")
    assert colours(runtime, [RED]) == colours(runtime, [[RED] * 4]) == [[1, 0, 0.2]]
    with pytest.raises(DataError, match=r"m\.onnx takes clips of 4 frames, .*; found clips of 3"):
        runtime.embed([[RED] * 3])


def test_torchvision_decodes_and_resizes_on_request(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resized: list[type] = []
    pixels = Preprocess.pixels
    monkeypatch.setattr(
        Preprocess,
        "pixels",
        lambda self, image: resized.append(type(image)) or pixels(self, image),
    )
    Image.fromarray(RED).save(tmp_path / "red.jpg", quality=100)
    frame = np.zeros((40, 30, 3), np.uint8)
    frame[10:30, 5:15] = RED[..., ::-1]
    runtime = Runtime(exported, device="cpu", image_backend="torchvision")
    found = [
        *colours(runtime, [tmp_path / "red.jpg", Image.fromarray(RED), RED]),
        *colours(runtime, torch.from_numpy(RED).permute(2, 0, 1)),
        *colours(runtime, frame, boxes=[[5, 10, 15, 30]], channels="bgr"),
    ]
    assert np.abs(np.array(found) - [1, 0, 0.2]).max() < 0.01
    assert resized == [torch.Tensor] * 5
    resized.clear()
    Runtime(exported, device="cpu").embed([tmp_path / "red.jpg", Image.fromarray(RED), RED])
    assert resized == [Image.Image] * 3


def test_an_image_backend_that_is_unknown_or_not_installed_is_refused(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="image_backend must be pillow or torchvision, got 'cv2'"):
        Runtime(exported, device="cpu", image_backend="cv2")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "reidkit.data.decode", None)
    with pytest.raises(RuntimeMissing, match=r"pip install torch torchvision\. Or leave it out"):
        Runtime(exported, device="cpu", image_backend="torchvision")


def test_boxes_of_another_shape_are_refused(runtime: Runtime) -> None:
    with pytest.raises(DataError, match=r"boxes have shape \[1, 5\], expected \[N, 4\]"):
        runtime.embed(RED, boxes=[[0, 0, 9, 9, 0.5]])
    with pytest.raises(DataError, match=r"boxes are not numbers \[N, 4\]"):
        runtime.embed(RED, boxes=[[0, 0, 9, 9], [1]])
    with pytest.raises(DataError, match=r"the frame: found float64 \[20, 10, 3\]"):
        runtime.embed(RED / 255, boxes=[])


def test_load_gives_a_runtime_that_embeds_many_images_fast(exported: Path) -> None:
    model = reidkit.load(str(exported), "cpu", 2)
    assert isinstance(model, Runtime)
    assert repr(model) == "Runtime(mean (ONNX), 3-d, 8x4, cpu)"
    assert model.describe().endswith("CPU, 2 threads with a batch each, fp32")


def test_mode_and_threads_change_no_embedding(exported: Path) -> None:
    rng = np.random.default_rng(0)
    crops = [rng.integers(0, 256, (30, 15, 3), np.uint8) for _ in range(40)]
    expected = Runtime(exported, device="cpu", threads=1).embed(crops)
    for mode in ("latency", "throughput"):
        other = Runtime(exported, device="cpu", threads=3, mode=mode)  # type: ignore[arg-type]
        assert (other.embed(crops) == expected).all()


def test_what_was_chosen_is_one_line(exported: Path) -> None:
    latency = Runtime(exported, device="cpu", threads=2)
    assert latency.describe().startswith("mean (ONNX): ONNX Runtime ")
    assert latency.describe().endswith("CPU, 2 threads, fp32")
    throughput = Runtime(exported, device="cpu", threads=2, mode="throughput")
    assert throughput.describe().endswith("CPU, 2 threads with a batch each, fp32")
    assert (latency.dimension, latency.frames, latency.preprocess.size) == (3, 0, (8, 4))
