"""Images in memory, as users have them: arrays, tensors, Pillow images, paths, boxes of a frame.

A tensor has its channels first and an array has them last, as their libraries write them. Importing
this imports no torch.
"""

# N crops, H W pixels

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from reidkit.errors import DataError
from reidkit.image import read_image, to_rgb

if TYPE_CHECKING:
    from torch import Tensor

Crop: TypeAlias = "NDArray[np.uint8] | Tensor | Image.Image | str | Path"
"""An image: an array uint8 [H, W, 3], a tensor uint8 [3, H, W], a Pillow image, or the path of a
file."""


def cut_boxes(frame: Any, boxes: ArrayLike | Tensor) -> list[NDArray[np.uint8]]:
    """The boxes of a frame as views of it.

    Args:
        frame: a `Crop`.
        boxes: [N, 4], x1 y1 x2 y2 in pixels; clipped to the frame and rounded.
    Raises:
        DataError: if the frame is not an image, `boxes` has another shape, or a box is not finite
            or empty within the frame.
    """
    if isinstance(frame, str | Path):
        frame = read_image(check_file(Path(frame)))
    if isinstance(frame, Image.Image):
        frame = pillow_rgb(frame, "the frame")
    array = to_array(frame, "the frame")
    try:
        corners = np.asarray(_on_cpu(boxes), np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"boxes are not numbers [N, 4] of x1 y1 x2 y2: {error}") from error
    if corners.size == 0:
        return []
    if corners.ndim != 2 or corners.shape[1] != 4:
        raise DataError(f"boxes have shape {list(corners.shape)}, expected [N, 4] of x1 y1 x2 y2")
    wrong = np.flatnonzero(~np.isfinite(corners).all(1))
    if len(wrong):
        raise DataError(f"boxes[{wrong[0]}] = {corners[wrong[0]].tolist()} is not finite")
    height, width = array.shape[:2]
    limits = np.array([width, height, width, height], np.float64)
    clipped = np.rint(np.clip(corners, 0, limits))
    empty = (clipped[:, 2] <= clipped[:, 0]) | (clipped[:, 3] <= clipped[:, 1])
    if empty.any():
        index = int(np.flatnonzero(empty)[0])
        raise DataError(
            f"boxes[{index}] = {corners[index].tolist()} is empty in a frame {width} pixels wide "
            f"and {height} high, expected x1 y1 x2 y2 with x1 < x2 and y1 < y2"
        )
    return [array[y1:y2, x1:x2] for x1, y1, x2, y2 in clipped.astype(int)]


def as_crops(images: Any) -> Sequence[Any]:
    """One crop or several as a sequence of crops."""
    if not is_sequence(images):
        return [images]
    return list(images) if is_array(images) else images


def is_sequence(value: Any) -> bool:
    """Whether it is several crops, or a clip: a list or tuple, or an array of four dimensions."""
    if is_array(value):
        return bool(value.ndim >= 4)
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | memoryview)


def is_array(value: Any) -> bool:
    """Whether it is a NumPy array or a tensor."""
    return isinstance(value, np.ndarray) or _is_tensor(value)


def _on_cpu(value: Any) -> Any:
    return value.detach().cpu() if _is_tensor(value) else value


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")  # not imported: there are no tensors
    return torch is not None and isinstance(value, torch.Tensor)


def check_file(path: Path) -> Path:
    """The path; a folder is a DataError that says how to pass its files."""
    if path.is_dir():
        raise DataError(
            f"{path} is a folder, expected an image. Pass its files: "
            f"sorted(Path({str(path)!r}).glob('*.jpg'))"
        )
    return path


def pillow_rgb(image: Image.Image, where: str) -> Image.Image:
    """A Pillow image as RGB, upright; `where` names it in messages.

    Raises:
        DataError: it is closed, cannot be decoded or has no pixels.
    """
    if 0 in image.size:
        raise DataError(f"{where}: found a Pillow image of {image.width}x{image.height} pixels")
    try:
        return to_rgb(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{where}: cannot read the Pillow image: {error}") from error


def to_array(image: Any, where: str) -> NDArray[np.uint8]:
    """An array uint8 [H, W, 3], or a tensor uint8 [3, H, W] of any device, as an array
    uint8 [H, W, 3]; `where` names it in messages.

    Raises:
        DataError: it is something else; the message says how to convert it.
    """
    if _is_tensor(image):
        dtype, shape = str(image.dtype).removeprefix("torch."), list(image.shape)
        if dtype != "uint8" or len(shape) != 3 or shape[0] != 3 or 0 in shape:
            raise DataError(
                f"{where}: found a tensor {dtype} {shape}, expected uint8 [3, H, W]"
                f"{_tensor_advice(image, dtype, shape)}"
            )
        tensor: NDArray[np.uint8] = image.permute(1, 2, 0).cpu().numpy()
        return tensor
    if not isinstance(image, np.ndarray | Image.Image):
        raise DataError(
            f"{where}: found a {type(image).__name__}, expected a path, a Pillow image, an array "
            "uint8 [H, W, 3] or a tensor uint8 [3, H, W], or a list of these"
        )
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or 0 in array.shape:
        raise DataError(
            f"{where}: found {array.dtype} {list(array.shape)}, expected uint8 [H, W, 3]"
            f"{_array_advice(array)}"
        )
    return array


def _array_advice(array: NDArray[Any]) -> str:
    """How to convert an array that is not uint8 [H, W, 3]; "" if that is not known."""
    shape = array.shape
    if 0 in shape:
        return ""
    if array.dtype.kind == "f" and shape[2:] == (3,):
        values = "image * 255" if array.max() <= 1 else "image"
        return f". Convert it: np.rint({values}).astype(np.uint8)"
    if array.dtype.kind in "iu" and array.dtype != np.uint8 and shape[2:] == (3,):
        return ". Convert it: image.astype(np.uint8), if its values are 0 to 255"
    if array.dtype != np.uint8:
        return ""
    if array.ndim == 3 and shape[0] == 3:
        return ". Channels come last: image.transpose(1, 2, 0)"
    if array.ndim == 3 and shape[2] == 1:
        return ". Convert it: PIL.Image.fromarray(image[..., 0])"
    if array.ndim == 2 or shape[2:] == (4,):
        return ". Convert it: PIL.Image.fromarray(image)"
    return ""


def _tensor_advice(tensor: Any, dtype: str, shape: list[int]) -> str:
    """The same for a tensor that is not uint8 [3, H, W]."""
    if 0 in shape or len(shape) != 3:
        return ""
    if shape[0] == 3 and tensor.is_floating_point():
        values = "image * 255" if tensor.max() <= 1 else "image"
        return f". Convert it: ({values}).round().to(torch.uint8)"
    if dtype == "uint8" and shape[2] == 3:
        return ". Channels of tensors come first: image.permute(2, 0, 1)"
    return ""
