"""Body parts in IAU blocks: attention maps and relations (IAUnet, Fig. 6 to 8)."""

# T frames, N parts, R reduced channels, h w feature map

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from reidkit.models.base import ReidModel
from reidkit.models.blocks.base import masked_softmax
from reidkit.models.blocks.stiau import PartAttention, PartExchange
from reidkit.types import PARTS
from reidkit.visualize.attention.figure import Figure
from reidkit.visualize.attention.inputs import FigureInputs, Subject, rounded
from reidkit.visualize.attention.recording import modules_of, record
from reidkit.visualize.attention.sheet import (
    CELL,
    Row,
    Sheet,
    grid,
    heat_map,
    matrix,
    range_text,
    strip,
)

PATCHES = ("top left", "top right", "bottom left", "bottom right")
"""Names of the patches that replace body parts where the objects have none."""


@dataclass(frozen=True)
class PartState:
    """The parts of one clip in one block.

    Attributes:
        names: of the N parts.
        maps: attention [T, N, h, w]; None where patches replace parts.
        parts, updated: features before and after the exchange [T, N, R].
        logits: relations of all pairs of parts [T, N, T, N] (eq. 1, 2).
        weights: relation map [T, N, T, N] (eq. 4).
    """

    names: tuple[str, ...]
    maps: Tensor | None
    parts: Tensor
    updated: Tensor
    logits: Tensor
    weights: Tensor

    @property
    def spatial(self) -> Tensor:
        """S [T, N, N]: the relations of the parts of a frame, rows sum to one."""
        return _of_others(torch.einsum("tntm->tnm", self.logits))

    @property
    def temporal(self) -> Tensor:
        """T [N, T, T]: the relations of a part in several frames, rows sum to one."""
        return _of_others(torch.einsum("tnsn->nts", self.logits))


def _of_others(logits: Tensor) -> Tensor:
    """Softmax over the other nodes: [..., K, K], 0 on the diagonal.

    Not a part of `weights` scaled to sum to one: those of the frames may all be too small for
    float32 beside those of the parts.
    """
    itself = torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
    return masked_softmax(logits, ~itself)


@torch.inference_mode()
def part_states(inputs: FigureInputs) -> dict[str, list[PartState]]:
    """What each `PartExchange` of the network computes, by its place; one state per subject."""
    exchanges = modules_of(inputs.network, PartExchange)
    states: dict[str, list[PartState]] = {place: [] for place in exchanges}
    for subject in inputs.subjects:
        with record(exchanges) as calls:
            inputs.network(inputs.clip(subject))
        for place, exchange in exchanges.items():
            found = exchange.exchange(calls[place].input)
            T = len(subject.frames)
            N = found.parts.shape[1] // T
            states[place].append(
                PartState(
                    names=PARTS if isinstance(exchange.division, PartAttention) else PATCHES,
                    maps=found.maps[0] if found.maps else None,
                    parts=found.parts.reshape(T, N, -1),
                    updated=found.updated.reshape(T, N, -1),
                    logits=found.logits.reshape(T, N, T, N),
                    weights=found.weights.reshape(T, N, T, N),
                )
            )
    return states


def has_part_maps(network: ReidModel) -> bool:
    """Whether it has attention over body parts."""
    return any(
        isinstance(exchange.division, PartAttention)
        for exchange in modules_of(network, PartExchange).values()
    )


def has_spatial_relations(network: ReidModel) -> bool:
    """Whether parts of a frame exchange information."""
    return _has_relations(network, "spatial")


def has_temporal_relations(network: ReidModel) -> bool:
    """Whether parts of different frames exchange information."""
    return _has_relations(network, "temporal")


def _has_relations(network: ReidModel, kind: str) -> bool:
    return any(kind in block.interaction for block in modules_of(network, PartExchange).values())


def plot_part_maps(inputs: FigureInputs) -> list[Figure]:
    """A row per frame, a column per part (Fig. 6). The colours of a map span 0 to 1."""
    figures = []
    for place, states in part_states(inputs).items():
        rows, numbers = [], []
        for subject, state in zip(inputs.subjects, states, strict=True):
            assert state.maps is not None
            for t, picture in enumerate(inputs.pictures(subject)):
                maps = state.maps[t]
                over = [heat_map(picture, m, low=0, high=1, aligned_corners=True) for m in maps]
                captions = ("", *map(range_text, maps))
                rows.append(Row(subject.frame_name(t), (picture, *over), captions))
                by_part = {n: rounded(m) for n, m in zip(state.names, maps, strict=True)}
                numbers.append({"image": str(subject.frames[t]), "maps": by_part})
        sheet = Sheet(
            f"Part attention, {place}",
            ("image", *states[0].names),
            tuple(rows),
            scale=("0", "1"),
        )
        figures.append(Figure(place, sheet, numbers))
    return figures


def plot_spatial_relations(inputs: FigureInputs) -> list[Figure]:
    """A row per frame: the parts before and after the exchange, and S in percent (Fig. 7)."""
    figures = []
    for place, states in part_states(inputs).items():
        before = _first_component([state.parts for state in states])
        after = _first_component([state.updated for state in states])
        rows, numbers = [], []
        for k, (subject, state) in enumerate(zip(inputs.subjects, states, strict=True)):
            for t, picture in enumerate(inputs.pictures(subject)):
                relation = 100 * state.spatial[t]
                cells = (
                    picture,
                    _column(before[k][t], before),
                    _column(after[k][t], after),
                    matrix(relation, rows=state.names, columns=_initials(state.names), high=100),
                )
                rows.append(Row(subject.frame_name(t), cells))
                numbers.append(
                    {
                        "image": str(subject.frames[t]),
                        "parts": list(state.names),
                        "before": rounded(before[k][t]),
                        "after": rounded(after[k][t]),
                        "percent": rounded(relation),
                        "weight_within_frame": rounded(
                            torch.einsum("nm->n", state.weights[t, :, t])
                        ),
                    }
                )
        sheet = Sheet(
            f"Relations of the parts of an image, {place}",
            ("image", "P", "updated P", "S, %"),
            tuple(rows),
            note=(
                "P and updated P: first principal component of the features over all rows.",
                "S: percentage that the part on the left takes from each other part of the frame.",
            ),
        )
        figures.append(Figure(place, sheet, numbers))
    return figures


def plot_temporal_relations(inputs: FigureInputs) -> list[Figure]:
    """A row per part of each clip: its features over time, and T in percent (Fig. 8)."""
    figures = []
    for place, states in part_states(inputs).items():
        before = _first_component([state.parts for state in states])
        after = _first_component([state.updated for state in states])
        rows: list[Row] = []
        numbers = []
        for k, (subject, state) in enumerate(zip(inputs.subjects, states, strict=True)):
            if len(subject.frames) == 1:
                continue
            relations = 100 * state.temporal
            for n, part in enumerate(state.names):
                cells = (
                    _sequence(inputs, subject, (before[k][:, n], before), (after[k][:, n], after)),
                    _frame_matrix(relations[n]),
                )
                rows.append(Row(f"{subject.name}: {part}", cells))
            numbers.append(
                {
                    "clip": [str(frame) for frame in subject.frames],
                    "parts": {
                        part: {
                            "before": rounded(before[k][:, n]),
                            "after": rounded(after[k][:, n]),
                            "percent": rounded(relations[n]),
                        }
                        for n, part in enumerate(state.names)
                    },
                }
            )
        if not rows:
            return []
        sheet = Sheet(
            f"Relations of the frames of a clip, {place}",
            ("part features of the clip", "T, %"),
            tuple(rows),
            note=(
                "P and updated P: first principal component of the features over all rows.",
                "T: percentage that the frame on the left takes from each other frame.",
            ),
        )
        figures.append(Figure(place, sheet, numbers))
    return figures


def _first_component(features: Sequence[Tensor]) -> list[Tensor]:
    """Projections of features [T, N, R] on the first principal component of all: [T, N] each.

    The sign is that which makes the entry of the component with the largest magnitude positive.
    """
    rows = torch.cat([f.flatten(0, 1) for f in features]).double()
    mean = rows.mean(0)
    axis = torch.linalg.svd(rows - mean, full_matrices=False).Vh[0]
    axis = axis * axis[axis.abs().argmax()].sign()
    return [(f.double() - mean) @ axis for f in features]


def _limits(projections: Sequence[Tensor]) -> tuple[float, float]:
    return min(float(p.min()) for p in projections), max(float(p.max()) for p in projections)


def _column(values: Tensor, of: Sequence[Tensor]) -> Image.Image:
    low, high = _limits(of)
    squares = strip(values, low=low, high=high, width=52, height=CELL)
    return grid([[squares]], columns=("",))  # beside a matrix, whose rows are below its labels


def _initials(names: Sequence[str]) -> list[str]:
    """ "upper body" -> "upper": what fits above a column."""
    return [name.split()[0] for name in names] if names == PARTS else ["TL", "TR", "BL", "BR"]


def _sequence(
    inputs: FigureInputs, subject: Subject, *strips: tuple[Tensor, Sequence[Tensor]]
) -> Image.Image:
    """The frames of a clip, and strips of one value per frame below them."""
    pictures = inputs.pictures(subject, scale=0.55)
    lines = [pictures]
    for values, of in strips:
        low, high = _limits(of)
        width = max(pictures[0].width, 44)
        lines.append([strip(v[None], low=low, high=high, width=width, height=26) for v in values])
    return grid(lines, rows=("", "P", "updated P"))


def _frame_matrix(values: Tensor) -> Image.Image:
    labels = [str(t + 1) for t in range(len(values))]
    return matrix(values, rows=labels, columns=labels, high=100)
