"""Relations of positions: receptive fields of SIA (IANet, Fig. 4 and 8), relations in RGA-S and
non-local blocks (RGA, Fig. 4), and masks of spatial attention (RGA, Fig. 1)."""

# C channels, h w feature map, M = h·w positions

from __future__ import annotations

from PIL import Image
from torch import Tensor, nn

from reidkit.models.base import ReidModel
from reidkit.models.blocks.base import at_least_float32
from reidkit.models.blocks.gates import CBAMSpatial, FCSpatial
from reidkit.models.blocks.nonlocal_block import NonLocal
from reidkit.models.blocks.rga import RGA
from reidkit.models.blocks.sia import IA, SpatialUpdate
from reidkit.visualize.attention.channels import choose_channels
from reidkit.visualize.attention.figure import Figure, View, view_frames
from reidkit.visualize.attention.inputs import FigureInputs, cell_of, rounded
from reidkit.visualize.attention.recording import Call, modules_of
from reidkit.visualize.attention.sheet import (
    Sheet,
    grid,
    mark,
    numbered,
    own_range,
    range_text,
    reduced,
)

CHANNELS = (5, 11, 121)
"""Channels in IANet's Fig. 8."""
_SCALE = ("lowest value of the map", "highest")


def has_receptive_fields(network: ReidModel) -> bool:
    """Whether it has SIA blocks."""
    return bool(modules_of(network, SpatialUpdate))


def has_contexts(network: ReidModel) -> bool:
    """Whether it has SIA blocks with appearance relations."""
    return any(block.relations != "location" for block in _spatial_updates(network).values())


def has_position_relations(network: ReidModel) -> bool:
    """Whether it has RGA-S blocks with relations, or non-local blocks."""
    return bool(_relation_blocks(network))


def has_spatial_masks(network: ReidModel) -> bool:
    """Whether it multiplies its maps by spatial attention: RGA-S, CBAM-S or FC-S."""
    return bool(_mask_modules(network))


def plot_receptive_fields(inputs: FigureInputs) -> list[Figure]:
    """A row per frame: the image with numbered positions, the row of S of each, and channels of
    CIA's output. The colours of a map span its own lowest to highest value."""

    def plot(place: str, block: IA, spatial: SpatialUpdate) -> Figure:
        modules: dict[str, nn.Module] = {"spatial": spatial}
        if block.channel is not None:
            modules["channel"] = block.channel

        def view(calls: dict[str, Call], t: int, picture: Image.Image) -> View:
            x = calls["spatial"].input[[t]]  # [1, C, h, w]
            h, w = x.shape[2:]
            cells = [cell_of(position, h, w) for position in inputs.positions]
            S = field_relation(spatial, x)
            fields = [S[i * w + j].reshape(h, w) for i, j in cells]
            numbers = {"positions": cells, "fields": [rounded(field) for field in fields]}
            maps = fields
            if "channel" in calls:
                output = calls["channel"].input[t, 0] + calls["channel"].output[t, 0]
                chosen = choose_channels(inputs.channels, len(output), CHANNELS)
                maps = [*fields, *output[chosen]]
                numbers |= {"channels": chosen, "channel_maps": rounded(output[chosen])}
            shown = [own_range(picture, m) for m in maps]
            captions = ("", *map(range_text, maps))
            return View((numbered(picture, cells, (h, w)), *shown), numbers, captions)

        rows, numbers = view_frames(inputs, modules, view)
        headings = ["image", *(f"field of {k + 1}" for k in range(len(inputs.positions)))]
        headings += [f"channel {c}" for c in numbers[0].get("channels", [])]
        sheet = Sheet(
            f"Receptive fields of positions, {place}",
            tuple(headings),
            rows,
            scale=_SCALE,
            note=(
                "Field: the weights by which SIA aggregates all positions for the numbered one.",
            ),
        )
        return Figure(place, sheet, numbers)

    return [
        plot(place, block, block.spatial)
        for place, block in modules_of(inputs.network, IA).items()
        if block.spatial is not None
    ]


def plot_contexts(inputs: FigureInputs) -> list[Figure]:
    """A column of pictures per patch size, one picture per position: the relation of each patch
    size, of all, and with the location prior. The colours of a map span its own range."""

    def plot(place: str, block: SpatialUpdate) -> Figure:
        names = [f"K = {context}" for context in block.contexts]
        names += ["all K"] if len(block.contexts) > 1 else []
        names += ["with location"] if block.relations == "semantic" else []

        def view(calls: dict[str, Call], t: int, picture: Image.Image) -> View:
            x = calls["spatial"].input[[t]]
            h, w = x.shape[2:]
            cells = [cell_of(position, h, w) for position in inputs.positions]
            relations = _context_relations(block, x)
            small = reduced(picture, 0.7)
            columns = [[mark(small, cell, (h, w)) for cell in cells]]
            numbers: dict[str, object] = {"positions": cells}
            for name, relation in zip(names, relations, strict=True):
                fields = [relation[i * w + j].reshape(h, w) for i, j in cells]
                columns.append([own_range(small, field) for field in fields])
                numbers[name] = [rounded(field) for field in fields]
            return View(tuple(grid([[p] for p in column]) for column in columns), numbers)

        rows, numbers = view_frames(inputs, {"spatial": block}, view)
        sheet = Sheet(
            f"Receptive fields by context, {place}", ("image", *names), rows, scale=_SCALE
        )
        return Figure(place, sheet, numbers)

    return [
        plot(place, block)
        for place, block in _spatial_updates(inputs.network).items()
        if block.relations != "location"
    ]


def plot_position_relations(inputs: FigureInputs) -> list[Figure]:
    """A row per frame: the relation of each position, marked by a red square, to all positions of
    the frame. The colours of a map span its own lowest to highest value."""

    def plot(place: str, block: RGA | NonLocal) -> Figure:
        module = block.spatial if isinstance(block, RGA) else block
        assert module is not None

        def view(calls: dict[str, Call], t: int, picture: Image.Image) -> View:
            if isinstance(block, RGA):
                h, w = block.grid
            else:
                h, w = calls["block"].input.shape[3:]
            relation = position_relation(block, calls["block"].input, t)
            cells = [cell_of(position, h, w) for position in inputs.positions]
            rows = [relation[i * w + j].reshape(h, w) for i, j in cells]
            shown = [
                mark(own_range(picture, row), cell, (h, w))
                for row, cell in zip(rows, cells, strict=True)
            ]
            numbers = {"positions": cells, "relations": [rounded(row) for row in rows]}
            captions = ("", *map(range_text, rows))
            return View((picture, *shown), numbers, captions)

        rows, numbers = view_frames(inputs, {"block": module}, view)
        headings = ("image", *(f"position {k + 1}" for k in range(len(inputs.positions))))
        sheet = Sheet(f"Relations of positions, {place}", headings, rows, scale=_SCALE)
        return Figure(place, sheet, numbers)

    return [plot(place, block) for place, block in _relation_blocks(inputs.network).items()]


def plot_spatial_masks(inputs: FigureInputs) -> list[Figure]:
    """A row per frame, a column per block: its spatial attention. The colours of a mask span its
    own lowest to highest value, which are below it."""
    modules = _mask_modules(inputs.network)
    grids = {place: block.grid for place, block in modules_of(inputs.network, RGA).items()}

    def view(calls: dict[str, Call], t: int, picture: Image.Image) -> View:
        masks = []
        for place in modules:
            mask = calls[place].output[t, 0]  # RGA-S has [h·w] positions
            masks.append(mask.reshape(grids[place]) if place in grids else mask)
        captions = ("", *map(range_text, masks))
        numbers = {"masks": {k: rounded(mask) for k, mask in zip(modules, masks, strict=True)}}
        return View((picture, *(own_range(picture, mask) for mask in masks)), numbers, captions)

    rows, numbers = view_frames(inputs, modules, view)
    sheet = Sheet("Spatial attention", ("image", *modules), rows, scale=_SCALE)
    return [Figure("", sheet, numbers)]


def field_relation(block: SpatialUpdate, x: Tensor) -> Tensor:
    """S of one frame: [1, C, h, w] -> [M, M], whose row i is the receptive field of position i."""
    h, w = x.shape[2:]
    S = block.relation(at_least_float32(x).flatten(2), h, w)
    return S.reshape(h * w, h * w)


def _context_relations(block: SpatialUpdate, x: Tensor) -> list[Tensor]:
    """The relations [M, M] of each patch size, of all, and with the location prior, as far as the
    block has them."""
    h, w = x.shape[2:]
    single = block.single_contexts(at_least_float32(x).flatten(2), h, w)
    relations = [relation[0] for relation in single]
    if len(single) > 1:
        relations.append(block.appearance(single)[0])
    if block.relations == "semantic":
        relations.append(field_relation(block, x))
    return relations


def position_relation(block: RGA | NonLocal, x: Tensor, frame: int) -> Tensor:
    """[M, M] of one frame: in row i and column j r(i, j) of RGA (eq. 1), or the weight by which a
    non-local block aggregates position j for position i.

    Args:
        x: the input of RGA-S, [T, C, M], or of the non-local block, [1, T, C, h, w].
    """
    if isinstance(block, RGA):
        assert block.spatial is not None
        return block.spatial.affinity(at_least_float32(x[[frame]]))[0]
    M = x.shape[3] * x.shape[4]
    own = slice(frame * M, (frame + 1) * M)  # positions are counted frame by frame
    return block.relation(x)[0, own, own]


def _spatial_updates(network: ReidModel) -> dict[str, SpatialUpdate]:
    return modules_of(network, SpatialUpdate)


def _relation_blocks(network: ReidModel) -> dict[str, RGA | NonLocal]:
    related: dict[str, RGA | NonLocal] = {**modules_of(network, NonLocal)}
    for place, block in modules_of(network, RGA).items():
        if block.spatial is not None and block.spatial.related is not None:
            related[place] = block
    return related


def _mask_modules(network: ReidModel) -> dict[str, nn.Module]:
    """Modules whose output is spatial attention, by the place of their block."""
    masks: dict[str, nn.Module] = {
        place: block.spatial
        for place, block in modules_of(network, RGA).items()
        if block.spatial is not None
    }
    return {**masks, **modules_of(network, CBAMSpatial), **modules_of(network, FCSpatial)}
