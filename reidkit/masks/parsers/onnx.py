"""A human parser in ONNX, run by reidkit: images in, label maps out.

The model maps a batch of images ([B, 3, H, W] or [B, H, W, 3]) to class scores ([B, C, h, w] or
[B, h, w, C]) or to labels ([B, h, w], with or without an axis of one), of fixed or free batch and
size.
"""

# B batch, H W pixels of an image, h w of the network's output, C classes

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from reidkit.choices import ChannelOrder, ParserFit, ParserPreset
from reidkit.errors import ConfigError, DataError
from reidkit.masks.labels import Labels, LabelSet
from reidkit.masks.sources import digest

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ParserOptions:
    """Preprocessing of a parser's images, and averaging of its outputs.

    Attributes:
        size: (height, width) of the network's input.
        fit: "stretch" the image to it, or "pad" it with black so that its aspect is kept.
        order: of the colour channels.
        unit: pixels are divided by 255 first.
        mean, std: per channel in `order`, subtracted and divided by after `unit`.
        scales: of `size`; scores are averaged over them.
        mirror: average with the mirrored image, left and right labels swapped.
        all_outputs: average over all outputs with a score per class (else the first).
        batch: batch size.
    """

    size: tuple[int, int]
    fit: ParserFit = "stretch"
    order: ChannelOrder = "rgb"
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
            raise ConfigError(f"parser scales {self.scales}: expected numbers of 0.1 to 4")
        if 0 in self.std or self.batch < 1:
            raise ConfigError("parser std must not be zero, and batch must be at least 1")


PRESETS: dict[ParserPreset, ParserOptions] = {
    # torchvision's convention, one pass
    "imagenet": ParserOptions(size=(384, 384)),
    # SCHP (Li et al., TPAMI 2020): BGR with ImageNet's statistics, aspect kept
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
    """A model's inputs and outputs.

    Attributes:
        channels_last: the input is [B, H, W, 3].
        size: the (height, width) that the model fixes, or None.
        batch: the batch size that the model fixes, or None.
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
    """The interface of an ONNX Runtime session.

    Raises:
        ConfigError: if it is not a parser of `num_labels` classes.
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
            " or of labels. For other classes add --label-set: cihp, atr, pascal-person-part or a"
            " TOML file"
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
    """A parser in an ONNX file. Its label maps have the image's own size.

    Args:
        session: an ONNX Runtime session of the model.
        labels: that the model gives.
        options: preprocessing; a size the model fixes takes precedence over `options.size`.
        model_hash: identifies the model in the store's key.

    Raises:
        ConfigError: if the model is not a parser of these labels, or the options do not fit it.
    """

    def __init__(
        self,
        session: Any,
        *,
        labels: LabelSet,
        options: ParserOptions,
        model_hash: str,
    ) -> None:
        num_labels = len(labels.names)
        self.interface = inspect(session, num_labels=num_labels, all_outputs=options.all_outputs)
        if self.interface.size:
            options = replace(options, size=self.interface.size)
            if options.scales != (1.0,):
                raise ConfigError(
                    f"this parser takes {self.interface.size[0]}x{self.interface.size[1]} and no"
                    f" other size, so scales {options.scales} cannot be averaged. Add --scales 1"
                )
        if self.interface.kind == "labels" and (options.mirror or len(options.scales) > 1):
            raise ConfigError(
                "this parser gives labels, which cannot be averaged over scales or mirrored images."
                " Add --scales 1 --no-mirror, or export its class scores"
            )
        self.session = session
        self.labels = labels
        self.options = options
        self.batch = self.interface.batch or options.batch
        facts = replace(options, batch=1)  # the maps do not depend on it
        self.key = digest("parser", model_hash, repr(facts), labels.names, labels.mirror)

    def label_maps(self, images: Sequence[Bytes]) -> list[Labels]:
        """Labels uint8 [H, W] of RGB images uint8 [H, W, 3] of any sizes."""
        height, width = self.options.size
        whole = [(image, (slice(None), slice(None))) for image in images]
        if self.options.fit == "pad":
            whole = [_pad_to_aspect(image, width / height) for image in images]
        framed = [image for image, _ in whole]
        maps = self._labels(framed) if self.interface.kind == "labels" else self._best(framed)
        return [label_map[inside] for label_map, (_, inside) in zip(maps, whole, strict=True)]

    def _labels(self, images: Sequence[Bytes]) -> list[Labels]:
        (output,) = self._run(images, 1.0, mirrored=False)
        highest = len(self.labels.names) - 1
        if not 0 <= output.min() <= output.max() <= highest:
            raise DataError(
                f"the parser gives labels {output.min()} to {output.max()}, expected 0 to"
                f" {highest} ({self.labels.name}). Name its label set: --label-set NAME"
            )
        labels = output.astype(np.uint8)
        return [_nearest(m, image.shape[:2]) for m, image in zip(labels, images, strict=True)]

    def _best(self, images: Sequence[Bytes]) -> list[Labels]:
        """The label of the highest score, summed over scales, mirrored images and outputs."""
        totals: list[Any] = [0.0] * len(images)
        mirrored = self.labels.mirrored
        for flip in (False, True)[: 1 + self.options.mirror]:
            for scale in self.options.scales:
                for output in self._run(images, scale, mirrored=flip):
                    for i, (scores, image) in enumerate(zip(output, images, strict=True)):
                        turned = scores[mirrored][:, :, ::-1] if flip else scores
                        totals[i] = totals[i] + _resize(turned, image.shape[:2])
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
            planes = _resize(planes, (height, width))
            batch[i] = ((planes / 255 if options.unit else planes) - mean) / std
        padding = (self.interface.batch or len(images)) - len(images)
        if padding:  # a model of fixed batch size: repeat the last image
            batch = np.concatenate([batch, np.repeat(batch[-1:], padding, axis=0)])
        if self.interface.channels_last:
            batch = np.ascontiguousarray(batch.transpose(0, 2, 3, 1))
        outputs = run_session(self.session, list(self.interface.outputs), batch)
        checked = [self._checked(output, len(batch)) for output in outputs]
        return [self._ordered(output[: len(images)]) for output in checked]

    def _checked(self, output: Any, batch: int) -> npt.NDArray[Any]:
        """An output that is what the model states: it may return anything.

        Raises:
            DataError: if it is not.
        """
        kind, num_labels = self.interface.kind, len(self.labels.names)
        shape: tuple[int, ...] = getattr(output, "shape", ())
        right = isinstance(output, np.ndarray) and shape[:1] == (batch,) and 0 not in shape
        if kind == "labels":
            right = right and (len(shape) == 3 or (len(shape) == 4 and 1 in (shape[1], shape[3])))
        else:
            right = right and len(shape) == 4 and shape[1 if kind == "scores" else 3] == num_labels
        if not right:
            found = f"{output.dtype} {list(shape)}" if shape else type(output).__name__
            raise DataError(
                f"the parser gives {found} for {batch} images, expected {kind.split()[0]} of"
                f" {num_labels} classes per pixel and image. Export it again"
            )
        checked: npt.NDArray[Any] = output
        if np.isnan(checked).any():
            raise DataError(
                f"the parser gives {kind.split()[0]} that are not numbers. Export it again, in fp32"
                " if it is fp16"
            )
        return checked

    def _ordered(self, output: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self.interface.kind == "scores last":
            return output.transpose(0, 3, 1, 2)
        if self.interface.kind == "labels" and output.ndim == 4:
            return output[:, 0] if output.shape[1] == 1 else output[..., 0]
        return output


def run_session(
    session: Any, outputs: Sequence[str] | None, batch: npt.NDArray[np.float32]
) -> list[npt.NDArray[Any]]:
    """Outputs (None: all) of a session's only input.

    Raises:
        ConfigError: if ONNX Runtime fails on an input of this shape.
    """
    try:
        found: list[npt.NDArray[Any]] = session.run(outputs, {session.get_inputs()[0].name: batch})
        return found
    except Exception as error:  # ONNX Runtime's errors have no common base class
        if type(error).__module__.startswith("onnxruntime"):
            shape = "x".join(map(str, batch.shape))
            node = re.search(r"running (\w+) node", str(error))
            where = f" in a node of type {node[1]}" if node else ""
            raise ConfigError(
                f"the parser fails on an input of {shape}{where}; choose another --size or --scales"
            ) from error
        raise


def _resize(planes: Floats, size: tuple[int, int]) -> Floats:
    """Bilinear, pixel centres aligned, no smoothing when it shrinks (as OpenCV and PyTorch do):
    [C, H, W] -> [C, *size]."""
    rows = _bilinear(planes.shape[1], size[0])
    columns = _bilinear(planes.shape[2], size[1])
    return np.asarray(rows @ planes @ columns.T, np.float32)


def _pad_to_aspect(image: Bytes, aspect: float) -> tuple[Bytes, tuple[slice, slice]]:
    """The image [H, W, 3] between black bars so that width / height = `aspect`, and where in the
    result it is."""
    H, W = image.shape[:2]
    height, width = max(H, round(W / aspect)), max(W, round(H * aspect))
    top, left = (height - H) // 2, (width - W) // 2
    inside = (slice(top, top + H), slice(left, left + W))
    padded = np.zeros((height, width, 3), np.uint8)
    padded[inside] = image
    return padded, inside


def _nearest(plane: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Nearest pixel, centres aligned: [H, W] -> `size`."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for old, new in zip(plane.shape, size, strict=True)
    )
    return np.asarray(plane[rows[:, None], columns[None, :]])


@lru_cache(maxsize=128)  # images come in many sizes
def _bilinear(old: int, new: int) -> Floats:
    """[new, old]"""
    position = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    lower = np.minimum(position.astype(int), max(old - 2, 0))
    share = (position - lower).astype(np.float32)
    matrix = np.zeros((new, old), np.float32)
    np.add.at(matrix, (np.arange(new), lower), 1 - share)
    np.add.at(matrix, (np.arange(new), np.minimum(lower + 1, old - 1)), share)
    return matrix
