"""A figure as pictures and as numbers, and the kinds of figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import nn

from reidkit.models.base import ReidModel
from reidkit.visualize.attention.inputs import FigureInputs
from reidkit.visualize.attention.recording import Call, record
from reidkit.visualize.attention.sheet import Row, Sheet


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        place: in the network, such as "stage2"; "" if the figure is of the whole network.
        sheet: the picture.
        numbers: what the picture shows, for JSON.
    """

    place: str
    sheet: Sheet
    numbers: Any


@dataclass(frozen=True)
class FigureKind:
    """A kind of figure.

    Attributes:
        source: the paper's figure that its layout follows.
        exists: whether a network has the blocks, or the classifier, that it shows.
        plot: the figures, one per place; none if no subject has what the figure shows.
    """

    source: str
    exists: Callable[[ReidModel], bool]
    plot: Callable[[FigureInputs], Sequence[Figure]]


class View(NamedTuple):
    """One frame as a row of a sheet.

    Attributes:
        cells: pictures of the columns; None leaves one empty.
        numbers: what they show.
        captions: below them; empty without.
    """

    cells: tuple[Image.Image | None, ...]
    numbers: dict[str, Any]
    captions: tuple[str, ...] = ()


def view_frames(
    inputs: FigureInputs,
    modules: Mapping[str, nn.Module],
    view: Callable[[dict[str, Call], int, Image.Image], View],
) -> tuple[tuple[Row, ...], list[dict[str, Any]]]:
    """A row and its numbers for each frame of each subject.

    Args:
        modules: whose calls `view` receives, with the number of the frame and its picture.
    """
    rows, numbers = [], []
    for subject in inputs.subjects:
        with torch.inference_mode(), record(modules) as calls:
            inputs.network(inputs.clip(subject))
            for t, picture in enumerate(inputs.pictures(subject)):
                found = view(calls, t, picture)
                rows.append(Row(subject.frame_name(t), found.cells, found.captions))
                numbers.append({"image": str(subject.frames[t]), **found.numbers})
    return tuple(rows), numbers
