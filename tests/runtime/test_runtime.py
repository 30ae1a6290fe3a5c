"""`reidkit.runtime.Runtime`: embeddings of crops in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import reidkit
from reidkit.errors import DataError
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

runtime = Runtime(sys.argv[1], device="cpu")
assert runtime.embed([np.zeros((20, 10, 3), np.uint8)]).shape == (1, 3)
assert extract_images(runtime.embedder, [[Path(sys.argv[2])]]).features.shape == (1, 3)
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


@pytest.mark.parametrize(
    "box", [[30, 10, 20, 30], [70, 0, 80, 9], [5, 5, 5.2, 9], [0, 0, np.nan, 9]]
)
def test_an_empty_box_is_refused_by_its_index(runtime: Runtime, box: list[float]) -> None:
    frame = np.zeros((100, 60, 3), np.uint8)
    with pytest.raises(DataError, match=r"boxes\[1\] = .* is empty in a frame 60 pixels wide"):
        runtime.embed(frame, boxes=[[0, 0, 9, 9], box])


@pytest.mark.parametrize(
    ("crop", "found"),
    [
        (RED.astype(np.float32), r"float32 \[20, 10, 3\]"),
        (RED[..., 0], r"uint8 \[20, 10\]"),
        (RED[:0], r"uint8 \[0, 10, 3\]"),
        (np.zeros((20, 10, 4), np.uint8), r"uint8 \[20, 10, 4\]"),
    ],
)
def test_a_crop_of_another_type_is_refused(runtime: Runtime, crop: np.ndarray, found: str) -> None:
    with pytest.raises(DataError, match=f"found {found}, expected uint8"):
        runtime.embed([RED, crop])


def test_boxes_of_another_shape_are_refused(runtime: Runtime) -> None:
    with pytest.raises(DataError, match=r"boxes have shape \[1, 5\], expected \[N, 4\]"):
        runtime.embed(RED, boxes=[[0, 0, 9, 9, 0.5]])


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
