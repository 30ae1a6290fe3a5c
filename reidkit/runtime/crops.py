"""Embeddings of crops in memory, for trackers and services. Imports no torch for ONNX files.

runtime = Runtime("model.onnx")
rows = runtime.embed(frame, boxes=detections, channels="bgr")      # float32 [N, D]
"""

# N crops, B batch, T frames, H W pixels, D embedding

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from reidkit.choices import ChannelOrder, EmbeddingPrecision, Provider, RuntimeMode
from reidkit.errors import DataError
from reidkit.image import read_image, to_rgb
from reidkit.preprocess import Preprocess
from reidkit.runtime.embedder import load_embedder
from reidkit.runtime.execution import Execution

Crop = NDArray[np.uint8] | Image.Image | str | Path
"""An image: uint8 [H, W, 3], a Pillow image, or the path of a file."""

BATCH = 16
"""Crops per batch."""


class Runtime:
    """A model that embeds crops: an ONNX file, a checkpoint (.safetensors) or a run folder.

    Args:
        path: of the model.
        device: auto, cpu, cuda or cuda:N.
        threads: number of threads on the CPU; None: one per core.
        mode: "latency" embeds one batch with all threads, "throughput" several batches at once
            with one thread each.
        provider: ONNX Runtime's execution provider; None: as the device says.
        precision: "bf16" for checkpoints on processors that have it.
        trust: run an ONNX file without a trial in a limited process (docs/reliability.md).
        inputs: of third-party ONNX files: size, interpolation, mean, std and channels, as in
            `Preprocess`, and output, the name of the embedding output.

    Attributes:
        preprocess: how images are resized and normalised.
        embedder: the model that it runs; see `embedder.Embedder`.
        dimension: D, the length of an embedding.
        frames: length of the clips it was trained on; 0: it takes images.

    Raises:
        CheckpointError, ConfigError, RuntimeMissing: as `load_embedder`.
    """

    def __init__(
        self,
        path: str | Path,
        device: str = "auto",
        threads: int | None = None,
        mode: RuntimeMode = "latency",
        *,
        provider: Provider | None = None,
        precision: EmbeddingPrecision = "fp32",
        trust: bool = False,
        **inputs: Any,
    ) -> None:
        execution = Execution(provider, threads, mode, precision)
        self.embedder = load_embedder(
            Path(path), device=device, inputs=inputs, execution=execution, trust=trust
        )
        self.preprocess: Preprocess = self.embedder.preprocess
        self.frames: int = self.embedder.frames
        self.dimension: int = self.embedder.dimension
        self._pool = ThreadPoolExecutor(execution.cores)

    def describe(self) -> str:
        """What was chosen, in one line: model, provider, threads, precision."""
        return self.embedder.description

    def embed(
        self,
        images: Crop | Sequence[Crop] | Sequence[Sequence[Crop]] | NDArray[np.uint8],
        *,
        boxes: ArrayLike | None = None,
        channels: ChannelOrder = "rgb",
        normalise: bool = True,
    ) -> NDArray[np.float32]:
        """Embeddings: float32 [N, D], [0, D] where there are no crops.

        Args:
            images: one crop, several, or none; uint8 [N, H, W, 3] where all have one size. For a
                network that takes clips, a crop may also be a sequence of frames of one length;
                a single crop is a clip of one frame. With `boxes`: the frame that contains them.
            boxes: [N, 4], x1 y1 x2 y2 in pixels of the frame; clipped to it and rounded.
            channels: of arrays, such as "bgr" of OpenCV's frames; files and Pillow images are RGB.
            normalise: L2-normalise the embeddings.

        Raises:
            DataError: if a crop is not an image or a file cannot be read, or if a box lies outside
                the frame, by its index.
        """
        crops = _crops(images) if boxes is None else cut_boxes(images, boxes)
        if boxes is not None and not isinstance(images, np.ndarray):
            channels = "rgb"  # of a frame that was read or is Pillow's
        if len(crops) == 0:
            return np.empty((0, self.dimension), np.float32)
        batches = [crops[start : start + BATCH] for start in range(0, len(crops), BATCH)]

        def run(batch: Sequence[Any]) -> NDArray[np.float32]:
            return self.embedder.embed(self._pixels(batch, channels))

        if self.embedder.concurrency > 1:
            rows = list(self._pool.map(run, batches))
        else:
            rows = [run(batch) for batch in batches]
        found = np.concatenate(rows)
        if normalise:
            found = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return found

    def _pixels(self, crops: Sequence[Any], channels: ChannelOrder) -> NDArray[np.uint8]:
        """uint8 [B, H, W, 3], or clips [B, T, H, W, 3]."""
        clips = [crop if self.frames and _is_sequence(crop) else [crop] for crop in crops]
        lengths = sorted({len(clip) for clip in clips})
        if len(lengths) > 1 or lengths[0] == 0:
            raise DataError(f"found clips of {lengths} frames in one batch, expected one length")
        images = [image for clip in clips for image in clip]
        # Threads resize the crops of one batch; several batches have a thread each already.
        spread = self._pool.map if self.embedder.concurrency == 1 else map
        pixels = np.stack(list(spread(lambda image: self._resized(image, channels), images)))
        return pixels.reshape(len(clips), -1, *pixels.shape[1:]) if self.frames else pixels

    def _resized(self, crop: Any, channels: ChannelOrder) -> NDArray[np.uint8]:
        if isinstance(crop, str | Path):
            return self.preprocess.pixels(read_image(Path(crop)))
        if isinstance(crop, Image.Image):
            return self.preprocess.pixels(to_rgb(crop))
        array = np.asarray(crop)
        if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or 0 in array.shape:
            raise DataError(
                f"found a crop of {array.dtype} {list(array.shape)}, expected uint8 [H, W, 3]"
            )
        # Resizing treats channels alike, so that their order can be changed afterwards.
        pixels = self.preprocess.pixels(Image.fromarray(np.ascontiguousarray(array)))
        return pixels if channels == "rgb" else pixels[..., ::-1]


def cut_boxes(frame: Any, boxes: ArrayLike) -> list[NDArray[np.uint8]]:
    """The boxes of a frame as views of it.

    Args:
        frame: uint8 [H, W, 3], a Pillow image, or the path of a file.
        boxes: [N, 4], x1 y1 x2 y2 in pixels; clipped to the frame and rounded.
    Raises:
        DataError: if `boxes` has another shape, or a box is empty within the frame.
    """
    if isinstance(frame, str | Path):
        frame = read_image(Path(frame))
    array = np.asarray(to_rgb(frame) if isinstance(frame, Image.Image) else frame)
    if array.ndim != 3:
        raise DataError(f"boxes need one frame, uint8 [H, W, 3], found {list(array.shape)}")
    corners = np.asarray(boxes, np.float64)
    if corners.size == 0:
        return []
    if corners.ndim != 2 or corners.shape[1] != 4:
        raise DataError(f"boxes have shape {list(corners.shape)}, expected [N, 4] of x1 y1 x2 y2")
    height, width = array.shape[:2]
    limits = np.array([width, height, width, height], np.float64)
    clipped = np.rint(np.clip(corners, 0, limits))
    finite = np.isfinite(corners).all(1)
    empty = ~finite | (clipped[:, 2] <= clipped[:, 0]) | (clipped[:, 3] <= clipped[:, 1])
    if empty.any():
        index = int(np.flatnonzero(empty)[0])
        raise DataError(
            f"boxes[{index}] = {corners[index].tolist()} is empty in a frame {width} pixels wide "
            f"and {height} high, expected x1 y1 x2 y2 with x1 < x2 and y1 < y2"
        )
    return [array[y1:y2, x1:x2] for x1, y1, x2, y2 in clipped.astype(int)]


def _crops(images: Any) -> Sequence[Any]:
    """One crop or several as a sequence of crops."""
    if isinstance(images, np.ndarray) and images.ndim == 4:
        return list(images)
    return images if _is_sequence(images) else [images]


def _is_sequence(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 4
    return isinstance(value, Sequence) and not isinstance(value, str)
