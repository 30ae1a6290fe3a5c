"""A human parser in ONNX, run by reidkit: images in, label maps out.

Any model goes that maps a batch of images ([B, 3, H, W] or [B, H, W, 3]) to class scores
([B, C, h, w] or [B, h, w, C]) or to labels ([B, h, w], with or without an axis of one), of fixed
or free batch and size.
"""

# B batch, H W pixels of an image, h w of the network's output, C classes

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from reidkit.errors import ConfigError, DataError
from reidkit.masks.images import read_rgb
from reidkit.masks.lip import Grouping, Labels
from reidkit.masks.resample import nearest, pad_to_aspect, resize
from reidkit.masks.sources import WORKERS, digest

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class ParserOptions:
    """How images are fed to a parser and its outputs are read.

    Attributes:
        size: (height, width) the network sees.
        fit: "stretch" the image to it, or "pad" it with black so that its shape is kept.
        order: of the colour channels.
        unit: pixels are divided by 255 first.
        mean, std: per channel in `order`, subtracted and divided by after `unit`.
        scales: of `size`; scores are averaged over them.
        mirror: average with the mirrored image, left and right labels changing places.
        all_outputs: average over all outputs with a score per class (else the first).
        batch: images at a time.
    """

    size: tuple[int, int]
    fit: Literal["stretch", "pad"] = "stretch"
    order: Literal["rgb", "bgr"] = "rgb"
    unit: bool = True
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    scales: tuple[float, ...] = (1.0,)
    mirror: bool = False
    all_outputs: bool = False
    batch: int = 8

    def __post_init__(self) -> None:
        if min(self.size) < 8 or max(self.size) > 4096:
            raise ConfigError(f"parser size {self.size}: expected 8 to 4096 pixels a side")
        if not self.scales or not all(0.1 <= scale <= 4 for scale in self.scales):
            raise ConfigError(f"parser scales {self.scales}: expected some of 0.1 to 4")
        if self.fit not in ("stretch", "pad") or self.order not in ("rgb", "bgr"):
            found = f"fit {self.fit!r}, order {self.order!r}"
            raise ConfigError(f"parser {found}: expected stretch or pad, rgb or bgr")
        if 0 in self.std or self.batch < 1:
            raise ConfigError("parser std must not be zero, and batch must be at least 1")


PRESETS = {
    # torchvision's convention, one pass
    "imagenet": ParserOptions(size=(384, 384)),
    # SCHP (Li et al., TPAMI 2020): BGR with ImageNet's statistics, the shape kept
    "schp": ParserOptions(
        size=(473, 473),
        fit="pad",
        order="bgr",
        mean=(0.406, 0.456, 0.485),
        std=(0.225, 0.224, 0.229),
    ),
    # JPPNet's evaluate_parsing_JPPNet-s2.py (Liang et al., TPAMI 2018): BGR minus the mean of
    # its training set, three scales, mirrored, all parsing outputs averaged
    "jppnet": ParserOptions(
        size=(384, 384),
        order="bgr",
        unit=False,
        mean=(104.00698793, 116.66876762, 122.67891434),
        std=(1.0, 1.0, 1.0),
        scales=(1.0, 0.75, 1.25),
        mirror=True,
        all_outputs=True,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Interface:
    """What a model's inputs and outputs look like.

    Attributes:
        channels_last: the input is [B, H, W, 3].
        size: (height, width) the model insists on, or None.
        batch: images at a time it insists on, or None.
        outputs: names of the outputs that are read.
        kind: scores with the classes second or last, or labels.
    """

    name: str
    channels_last: bool
    size: tuple[int, int] | None
    batch: int | None
    outputs: tuple[str, ...]
    kind: Literal["scores", "scores last", "labels"]


def inspect(session: Any, *, num_labels: int, all_outputs: bool) -> Interface:
    """Reads a model's interface off an ONNX Runtime session.

    Raises:
        ConfigError: if it is no parser of `num_labels` classes.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    described = ", ".join(f"{o.name} {o.shape}" for o in [*inputs, *outputs])
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or 3 not in inputs[0].shape[1::2]:
        raise ConfigError(f"parser has {described}; expected one input [batch, 3, height, width]")
    if inputs[0].type != "tensor(float)":
        raise ConfigError(f"parser input is {inputs[0].type}; expected tensor(float)")
    batch, *rest = inputs[0].shape
    last = rest[0] != 3
    sides = rest[:2] if last else rest[1:]
    kinds = {output.name: _kind(output, num_labels) for output in outputs}
    kind = next((k for k in kinds.values() if k), None)
    if kind is None:
        raise ConfigError(
            f"parser has {described}; expected an output of {num_labels} class scores per pixel,"
            " or of labels. Another label set? --label-set cihp, atr, pascal-person-part or a TOML"
        )
    names = tuple(name for name, k in kinds.items() if k == kind)
    return Interface(
        name=inputs[0].name,
        channels_last=last,
        size=(sides[0], sides[1]) if all(isinstance(side, int) for side in sides) else None,
        batch=batch if isinstance(batch, int) else None,
        outputs=names if all_outputs and kind != "labels" else names[:1],
        kind=kind,
    )


def _kind(output: Any, num_labels: int) -> Literal["scores", "scores last", "labels"] | None:
    shape = output.shape
    if len(shape) == 4 and "float" in output.type:
        if shape[1] == num_labels:
            return "scores"
        if shape[3] == num_labels:
            return "scores last"
    if len(shape) == 3 or (len(shape) == 4 and 1 in (shape[1], shape[3])):
        return "labels"
    return None


class OnnxParser:
    """A source that runs a parser. Its maps have the image's own size.

    Args:
        session: an ONNX Runtime session of the model.
        grouping: of the model's labels.
        options: preprocessing; a size the model fixes takes precedence over `options.size`.
        model_hash: tells this model from others, for the store's key.

    Raises:
        ConfigError: if the model is no parser of these labels, or cannot do what is asked.
    """

    def __init__(
        self,
        session: Any,
        *,
        root: Path,
        grouping: Grouping,
        options: ParserOptions,
        model_hash: str,
    ) -> None:
        num_labels = len(grouping.labels.names)
        self.interface = inspect(session, num_labels=num_labels, all_outputs=options.all_outputs)
        if self.interface.size:
            options = replace(options, size=self.interface.size)
            if options.scales != (1.0,):
                raise ConfigError(
                    f"this parser takes {self.interface.size[0]}x{self.interface.size[1]} and no"
                    f" other size, so scales {options.scales} cannot be averaged: --scales 1"
                )
        if self.interface.kind == "labels" and (options.mirror or len(options.scales) > 1):
            raise ConfigError(
                "this parser gives labels, which cannot be averaged over scales or mirror images:"
                " --scales 1 --no-mirror, or export its class scores"
            )
        self.session = session
        self.root = root
        self.labels = grouping
        self.options = options
        self.name = f"parser ({grouping.labels.name})"
        self.parts = grouping.parts
        self.grouping = grouping.describe()
        self.key = digest("parser", model_hash, repr(options), grouping.describe())

    def part_maps(self, images: Sequence[str]) -> Iterator[Labels]:
        batch = self.interface.batch or self.options.batch
        with ThreadPoolExecutor(WORKERS) as pool:
            for start in range(0, len(images), batch):
                names = images[start : start + batch]
                pixels = list(pool.map(lambda name: read_rgb(self.root / name), names))
                for label_map in self.label_maps(pixels):
                    yield self.labels.part_map(label_map)

    def label_maps(self, images: Sequence[Bytes]) -> list[Labels]:
        """Labels uint8 [H, W] of RGB images uint8 [H, W, 3] of any sizes."""
        height, width = self.options.size
        whole = [(image, (slice(None), slice(None))) for image in images]
        if self.options.fit == "pad":
            whole = [pad_to_aspect(image, width / height) for image in images]
        framed = [image for image, _ in whole]
        maps = self._labels(framed) if self.interface.kind == "labels" else self._best(framed)
        return [label_map[inside] for label_map, (_, inside) in zip(maps, whole, strict=True)]

    def _labels(self, images: Sequence[Bytes]) -> list[Labels]:
        (output,) = self._run(images, 1.0, mirrored=False)
        highest = len(self.labels.labels.names) - 1
        if output.min() < 0 or output.max() > highest:
            raise DataError(
                f"the parser gives labels {output.min()} to {output.max()}, expected 0 to"
                f" {highest} ({self.labels.labels.name}); say what it knows: --label-set NAME"
            )
        labels = output.astype(np.uint8)
        return [nearest(m, image.shape[:2]) for m, image in zip(labels, images, strict=True)]

    def _best(self, images: Sequence[Bytes]) -> list[Labels]:
        """The label of the highest score, summed over scales, mirror images and outputs."""
        totals: list[Any] = [0.0] * len(images)
        mirrored = self.labels.labels.mirrored
        for flip in (False, True)[: 1 + self.options.mirror]:
            for scale in self.options.scales:
                for output in self._run(images, scale, mirrored=flip):
                    for i, (scores, image) in enumerate(zip(output, images, strict=True)):
                        turned = scores[mirrored][:, :, ::-1] if flip else scores
                        totals[i] = totals[i] + resize(turned, image.shape[:2])
        return [total.argmax(axis=0).astype(np.uint8) for total in totals]

    def _run(
        self, images: Sequence[Bytes], scale: float, *, mirrored: bool
    ) -> list[npt.NDArray[Any]]:
        """Each output: scores [B, C, h, w], or labels [B, h, w]."""
        options = self.options
        height, width = (round(scale * side) for side in options.size)
        mean, std = (np.array(v, np.float32)[:, None, None] for v in (options.mean, options.std))
        batch = np.empty((len(images), 3, height, width), np.float32)
        for i, image in enumerate(images):
            planes = image.transpose(2, 0, 1).astype(np.float32)
            if options.order == "bgr":
                planes = planes[::-1]
            if mirrored:
                planes = planes[:, :, ::-1]
            planes = resize(planes, (height, width))
            batch[i] = ((planes / 255 if options.unit else planes) - mean) / std
        padding = (self.interface.batch or len(images)) - len(images)
        if padding:  # a model of fixed batch gets its last image again
            batch = np.concatenate([batch, np.repeat(batch[-1:], padding, axis=0)])
        if self.interface.channels_last:
            batch = np.ascontiguousarray(batch.transpose(0, 2, 3, 1))
        try:
            outputs = self.session.run(list(self.interface.outputs), {self.interface.name: batch})
        except Exception as error:  # ONNX Runtime's errors share no base class of their own
            if type(error).__module__.startswith("onnxruntime"):
                shape = "x".join(map(str, batch.shape))
                raise ConfigError(
                    f"the parser fails on an input of {shape}; try another --size"
                    f" ({str(error).splitlines()[0][:160]})"
                ) from error
            raise
        return [self._ordered(output[: len(images)]) for output in outputs]

    def _ordered(self, output: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self.interface.kind == "scores last":
            return output.transpose(0, 3, 1, 2)
        if self.interface.kind == "labels" and output.ndim == 4:
            return output[:, 0] if output.shape[1] == 1 else output[..., 0]
        return output
