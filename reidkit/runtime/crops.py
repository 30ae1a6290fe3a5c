"""Embeddings of crops in memory, for trackers and services. Imports no torch for ONNX files.

runtime = Runtime("model.onnx")
rows = runtime.embed(frame, boxes=detections, channels="bgr")      # float32 [N, D]
"""

# N crops, B batch, T frames, H W pixels, D embedding

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from reidkit.choices import (
    ChannelOrder,
    EmbeddingPrecision,
    ImageBackend,
    Provider,
    RuntimeMode,
)
from reidkit.data.pixels import image_reader
from reidkit.errors import ConfigError, DataError
from reidkit.files import user_path
from reidkit.preprocess import Preprocess
from reidkit.runtime.embedder import Embedder, load_embedder
from reidkit.runtime.execution import Execution
from reidkit.runtime.inputs import (
    Crop,
    as_crops,
    check_file,
    cut_boxes,
    is_array,
    is_sequence,
    pillow_rgb,
    to_array,
)
from reidkit.runtime.onnx_runtime import OnnxEmbedder

if TYPE_CHECKING:
    from torch import Tensor

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
        image_backend: "torchvision" decodes files and resizes crops in half of Pillow's time,
            but imports torch, and its pixels differ from those of evaluation: see `image_reader`.
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
        image_backend: ImageBackend = "pillow",
        **inputs: Any,
    ) -> None:
        self._read = image_reader(image_backend)
        self._image_backend = image_backend
        execution = Execution(provider, threads, mode, precision)
        self.embedder = load_embedder(
            user_path(path), device=device, inputs=inputs, execution=execution, trust=trust
        )
        self.preprocess: Preprocess = self.embedder.preprocess
        self.frames: int = self.embedder.frames
        self.dimension: int = self.embedder.dimension
        self._pool = ThreadPoolExecutor(execution.cores)
        # Threads that resize the crops of one batch; several batches have one each already. torch
        # takes so little time that threads would only wait for the interpreter lock.
        alone = self.embedder.concurrency == 1 and image_backend == "pillow"
        self._resizers = execution.cores if alone else 1

    def __repr__(self) -> str:
        height, width = self.preprocess.size
        clips = [f"clips of {self.frames}"] if self.frames else []
        embedder = self.embedder
        device = embedder.provider if isinstance(embedder, OnnxEmbedder) else embedder.device
        parts = [embedder.name[:40], f"{self.dimension}-d", *clips, f"{height}x{width}"]
        return f"Runtime({', '.join(parts)}, {device})"

    def describe(self) -> str:
        """What was chosen, in one line: model, provider, threads, precision."""
        return self.embedder.description

    def embed(
        self,
        images: Crop | Sequence[Crop | Sequence[Crop]],
        *,
        boxes: ArrayLike | Tensor | None = None,
        channels: ChannelOrder = "rgb",
        normalise: bool = True,
    ) -> NDArray[np.float32]:
        """Embeddings: float32 [N, D], [0, D] where there are no crops.

        Args:
            images: one crop, several, or none. An array uint8 [N, H, W, 3] or a tensor uint8
                [N, 3, H, W] is several of one size; otherwise sizes may differ. For a network that
                takes clips, a crop may also be a sequence of frames of one length; a single crop is
                a clip of one frame. With `boxes`: the frame that contains them. Files are read one
                batch at a time, so that a list of any length takes little memory.
            boxes: [N, 4], x1 y1 x2 y2 in pixels of the frame; clipped to it and rounded.
            channels: of arrays and tensors, such as "bgr" of OpenCV's frames; files and Pillow
                images are RGB.
            normalise: L2-normalise the embeddings, so that their dot products are cosines, by which
                they are compared. Without it, they are as the network gives them, which averages
                over several images and evaluation need.

        Raises:
            DataError: if a crop is not an image or a file cannot be read, or if a box is not
                finite or lies outside the frame, by its index.
        """
        if channels not in get_args(ChannelOrder):
            raise ConfigError(f"found channels={channels!r}, expected 'rgb' or 'bgr'")
        crops = as_crops(images) if boxes is None else cut_boxes(images, boxes)
        if boxes is not None and not is_array(images):
            channels = "rgb"  # of a frame that was read or is Pillow's
        if len(crops) == 0:
            return np.empty((0, self.dimension), np.float32)
        starts = range(0, len(crops), BATCH)

        def run(start: int) -> NDArray[np.float32]:
            return self.embedder.embed(
                self._pixels(crops[start : start + BATCH], channels, first=start)
            )

        rows = list((self._pool.map if self.embedder.concurrency > 1 else map)(run, starts))
        found = np.concatenate(rows)
        if normalise:
            found = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return found

    def _pixels(
        self, crops: Sequence[Any], channels: ChannelOrder, *, first: int
    ) -> NDArray[np.uint8]:
        """uint8 [B, H, W, 3], or clips [B, T, H, W, 3].

        Args:
            first: index of the first crop, for messages.
        """
        clips = [self._frames(crop, first + b) for b, crop in enumerate(crops)]
        lengths = sorted({len(clip) for clip in clips})
        if len(lengths) > 1 or lengths[0] == 0:
            raise DataError(f"found clips of {lengths} frames in one batch, expected one length")
        frames = [image for clip in clips for image in clip]
        owners = [first + b for b, clip in enumerate(clips) for _ in clip]
        pixels = np.empty((len(frames), *self.preprocess.size, 3), np.uint8)

        def resize(start: int) -> None:
            for row in range(start, min(start + step, len(frames))):
                pixels[row] = self._resized(frames[row], owners[row], channels)

        step = math.ceil(len(frames) / self._resizers)
        list((map if step == len(frames) else self._pool.map)(resize, range(0, len(frames), step)))
        return pixels.reshape(len(clips), -1, *pixels.shape[1:]) if self.frames else pixels

    def _frames(self, crop: Any, index: int) -> Sequence[Any]:
        """The frames of a clip; one for an image."""
        if not is_sequence(crop):
            return [crop]
        if not self.frames:
            raise DataError(
                f"images[{index}] is a sequence of {len(crop)}, but {self.embedder.name} embeds "
                "images, not clips. Pass one list of images"
            )
        return list(crop)

    def _resized(self, crop: Any, index: int, channels: ChannelOrder) -> NDArray[np.uint8]:
        if isinstance(crop, str | Path):
            return self.preprocess.pixels(self._read(check_file(user_path(crop))))
        if isinstance(crop, Image.Image):
            image = pillow_rgb(crop, f"images[{index}]")
        else:
            array = np.ascontiguousarray(to_array(crop, f"images[{index}]"))
            H, W, _ = array.shape
            image = Image.frombuffer("RGB", (W, H), array, "raw", channels.upper(), 0, 1)
        if self._image_backend == "pillow":
            return self.preprocess.pixels(image)
        from reidkit.data.decode import to_tensor

        return self.preprocess.pixels(to_tensor(image))


def load(
    path: str | Path,
    device: str = "auto",
    threads: int | None = None,
    mode: RuntimeMode = "throughput",
    *,
    provider: Provider | None = None,
    precision: EmbeddingPrecision = "fp32",
    trust: bool = False,
    image_backend: ImageBackend = "pillow",
    **inputs: Any,
) -> Runtime:
    """A model that embeds images: an ONNX file, a checkpoint (.safetensors) or a run folder.

    Arguments and errors as of `Runtime`, but for `mode`: by default many images are embedded as
    fast as possible. A tracker, which has a few crops at a time, takes mode="latency".
    """
    return Runtime(
        path,
        device,
        threads,
        mode,
        provider=provider,
        precision=precision,
        trust=trust,
        image_backend=image_backend,
        **inputs,
    )


def as_embedder(model: Embedder | Runtime | str | Path) -> Embedder:
    """The embedder of a runtime, of the model at a path, or itself.

    Raises:
        ConfigError: `model` is something else. Errors of `load_embedder` for a path.
    """
    if isinstance(model, Runtime):
        return model.embedder
    if isinstance(model, str | Path):
        return load_embedder(user_path(model))
    if not hasattr(model, "preprocess"):
        raise ConfigError(
            f"found a {type(model).__name__}, expected a model from reidkit.load, or its path. A "
            "network in memory: reidkit.runtime.torch_embedder.TorchEmbedder"
        )
    return model
