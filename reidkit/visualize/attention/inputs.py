"""What attention figures are plotted from: a network, images or clips, and chosen positions."""

# T frames, H W pixels, h w feature map

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reidkit.data.readers.rows import list_images
from reidkit.errors import DataError
from reidkit.image import read_image
from reidkit.models.base import ReidModel
from reidkit.preprocess import Preprocess
from reidkit.types import Dataset, Item, Split, Tracklet

PICTURE = (224, 160)
"""(height, width) in pixels that an image is enlarged or reduced to fit into."""
MAX_FRAMES = 200
"""Images and frames of one figure."""
IMAGES = 5
"""Images of a data set that are shown unless a number is requested."""
POSITIONS = ((0.5, 0.1), (0.5, 0.3), (0.5, 0.5), (0.45, 0.72), (0.45, 0.93))
"""(x, y) as fractions of width and height: head, torso, belt, leg and shoe of an upright person, as
in IANet's Fig. 8."""


@dataclass(frozen=True)
class Subject:
    """An image, or the frames of a clip.

    Attributes:
        name: shown beside it.
        frames: one file, or those of a clip in time order.
    """

    name: str
    frames: tuple[Path, ...]

    def frame_name(self, frame: int) -> str:
        """The name, with the number of the frame (from 1) if there are several."""
        return self.name if len(self.frames) == 1 else f"{self.name}, frame {frame + 1}"


@dataclass(frozen=True)
class FigureInputs:
    """What is shown, and in which network.

    Attributes:
        network: in evaluation mode, on `device`.
        positions: (x, y) as fractions of width and height in [0, 1], of receptive fields and
            relations.
        channels: numbers of the channels shown, from 0; empty for the default of each figure.
        compare: a second image for Grad-CAM of the cosine similarity.
    """

    network: ReidModel
    preprocess: Preprocess
    device: torch.device
    subjects: tuple[Subject, ...]
    positions: tuple[tuple[float, float], ...] = POSITIONS
    channels: tuple[int, ...] = ()
    compare: Subject | None = None

    def clip(self, subject: Subject) -> Tensor:
        """The network's input: float32 [1, T, 3, H, W]."""
        pixels = [self.preprocess.pixels(read_image(file)) for file in subject.frames]
        batch = torch.from_numpy(np.stack(pixels)).to(self.device)
        return self.preprocess.normalise(batch).unsqueeze(0)

    def pictures(self, subject: Subject, *, scale: float = 1.0) -> list[Image.Image]:
        """The frames as shown: in the shape of the network's input, to fit `PICTURE` · scale."""
        height, width = self.preprocess.size
        zoom = scale * min(PICTURE[0] / height, PICTURE[1] / width)
        size = (round(zoom * width), round(zoom * height))
        return [read_image(file).resize(size, Image.Resampling.LANCZOS) for file in subject.frames]


def cell_of(position: tuple[float, float], h: int, w: int) -> tuple[int, int]:
    """(row, column) of the cell of an h x w map that contains a position (x, y)."""
    x, y = position
    return min(int(y * h), h - 1), min(int(x * w), w - 1)


def rounded(values: Tensor) -> list[object]:
    """Values of a tensor as nested lists for JSON, six significant digits each."""

    def digits(value: object) -> object:
        return [digits(v) for v in value] if isinstance(value, list) else float(f"{value:.6g}")

    found = digits(values.tolist())
    assert isinstance(found, list)
    return found


def dataset_subjects(
    data: Dataset, split: Split, *, count: int | None, paths: Sequence[str], frames: int
) -> list[Subject]:
    """Images or clips of a split: those with these paths (or file names), else `count` of them,
    evenly spaced (default `IMAGES` images or one clip).

    Args:
        frames: of a clip, evenly spaced in its tracklet.
    Raises:
        DataError: a path is not in the split, or the split is empty.
    """
    items = list(getattr(data, split))
    if not items:
        raise DataError(f"{data.name} has no {split} split. Choose another with --split")
    if paths:
        by_name = {item.path.rpartition("/")[2]: item for item in reversed(items)}
        by_name |= {item.path: item for item in items}
        unknown = [path for path in paths if path not in by_name]
        if unknown:
            raise DataError(
                f"no image {unknown[0]!r} in the {split} split of {data.name}; expected a path "
                f"such as {items[0].path}"
            )
        chosen = [by_name[path] for path in paths]
    else:
        number = count or (1 if isinstance(items[0], Tracklet) else IMAGES)
        chosen = [items[k] for k in evenly_spaced(len(items), number)]
    return [_subject(item, data.root, frames) for item in chosen]


def _subject(item: Item, root: Path, frames: int) -> Subject:
    if not isinstance(item, Tracklet):
        return Subject(item.path, (root / item.path,))
    shown = [item.frames[k] for k in evenly_spaced(len(item.frames), frames)]
    return Subject(str(PurePosixPath(item.path).parent), tuple(root / s.path for s in shown))


def folder_subject(folder: Path, *, frames: int) -> Subject:
    """Evenly spaced images of a folder, in the order of their names, as one clip.

    Raises:
        DataError: there are none.
    """
    names = [name for name in list_images(folder) if "/" not in name] if folder.is_dir() else []
    if not names:
        raise DataError(f"--tracklet {folder}: expected a folder with the frames of a tracklet")
    return Subject(folder.name, tuple(folder / names[k] for k in evenly_spaced(len(names), frames)))


def evenly_spaced(n: int, count: int) -> list[int]:
    """At most `count` different indices of n things, from the first to the last."""
    spaced: list[int] = np.linspace(0, n - 1, min(n, count)).round().astype(int).tolist()
    return spaced
