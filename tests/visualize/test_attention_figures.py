"""Figures of attention show what the blocks compute, upright and aligned with the image."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from reidkit import checkpoint
from reidkit.choices import AttentionFigure
from reidkit.errors import ConfigError
from reidkit.models.archs.pfsa import PFSA
from reidkit.models.backbone import Backbone
from reidkit.models.base import ReidModel
from reidkit.models.blocks.base import Block
from reidkit.models.blocks.ciau import ChannelUpdate
from reidkit.models.blocks.gates import build_gate
from reidkit.models.blocks.iau import IAU
from reidkit.models.blocks.nonlocal_block import NonLocal
from reidkit.models.blocks.rga import RGA, RelationAttention
from reidkit.models.blocks.sia import IA, SpatialUpdate
from reidkit.models.blocks.stiau import PartAttention, PartExchange
from reidkit.models.heads import Head
from reidkit.models.network import GlobalNet
from reidkit.preprocess import Preprocess
from reidkit.registry import get_arch, list_archs
from reidkit.visualize.attention import available_figures, plot_figures
from reidkit.visualize.attention.class_maps import stage_class_maps
from reidkit.visualize.attention.grad_cam import grad_cam, grad_cam_pair
from reidkit.visualize.attention.inputs import FigureInputs, Subject, cell_of, evenly_spaced
from reidkit.visualize.attention.recording import modules_of, record
from reidkit.visualize.attention.sheet import heat_map, render

SIZE = (32, 28)
GRID = (8, 7)
CHANNELS = 8
CPU = torch.device("cpu")


class PatchMeans(Backbone):
    """Means of 4x4 pixels, mapped to 8 channels; all stages have the same map."""

    name = "patch-means"
    torchvision_name = None

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, CHANNELS, 1, bias=False)

    def stem(self, frames: Tensor) -> Tensor:
        found: Tensor = self.conv(F.avg_pool2d(frames, 4))
        return found

    def units(self, stage: int) -> Sequence[nn.Module]:
        return [nn.Identity()]

    def unit_channels(self, stage: int) -> tuple[int, ...]:
        return (CHANNELS,)

    def map_size(self, stage: int, input_size: tuple[int, int]) -> tuple[int, int]:
        return input_size[0] // 4, input_size[1] // 4


def tiny(block: Block | None = None, *, num_ids: int = 3) -> GlobalNet:
    """A network with one block in stage 2 and an embedding that is the mean of its map."""
    torch.manual_seed(0)
    head = Head(CHANNELS, num_ids=num_ids, kind="plain")
    net = GlobalNet(PatchMeans(), head=head, blocks={} if block is None else {"stage2": block})
    for module in net.modules():  # blocks that are initially the identity show something, too
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1)
    return net.eval()


def iau() -> IAU:
    return IAU(
        channel=ChannelUpdate(CHANNELS),
        part=PartExchange(CHANNELS, division=PartAttention(CHANNELS)),
    )


def ia() -> IA:
    return IA(spatial=SpatialUpdate(CHANNELS), channel=ChannelUpdate(CHANNELS, update=False))


def rga() -> RGA:
    spatial = RelationAttention(CHANNELS, nodes=GRID[0] * GRID[1])
    return RGA(spatial=spatial, channel=None, grid=GRID, arrangement="s")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Six images of noise."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{k}.png" for k in range(6)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (64, 28, 3), np.uint8)).save(path)
    return paths


def inputs(network: ReidModel, *subjects: Sequence[Path], **options: object) -> FigureInputs:
    shown = tuple(Subject(frames[0].name, tuple(frames)) for frames in subjects)
    size = getattr(network, "size", SIZE)
    return FigureInputs(network, Preprocess(size=size), CPU, shown, **options)  # type: ignore[arg-type]


def plot(name: str, given: FigureInputs) -> list[dict]:  # type: ignore[type-arg]
    """The numbers of one figure, whose sheet can be rendered."""
    ((_, figure),) = plot_figures(given, [AttentionFigure(name)])
    assert render(figure.sheet).size > (100, 100)
    numbers: list[dict] = figure.numbers  # type: ignore[type-arg]
    return numbers


def test_part_maps_are_those_of_the_network(files: list[Path]) -> None:
    network = tiny(iau())
    network.parts = ("head", "upper body", "lower body", "shoes")
    given = inputs(network, files[:1], files[1:3])
    rows = plot("part-maps", given)
    assert [Path(row["image"]).name for row in rows] == ["0.png", "1.png", "2.png"]
    (expected,) = network(given.clip(given.subjects[1])).part_maps  # [1, T, P, h, w]
    found = torch.tensor([list(row["maps"].values()) for row in rows[1:]])
    torch.testing.assert_close(found, expected[0].detach(), rtol=1e-4, atol=1e-4)


def test_spatial_and_temporal_relations_are_percentages_of_the_relation_map(
    files: list[Path],
) -> None:
    network = tiny(iau())
    given = inputs(network, files[:3])
    (exchange,) = modules_of(network, PartExchange).values()
    with record({"part": exchange}) as calls:
        network(given.clip(given.subjects[0]))
    R = exchange.exchange(calls["part"].input).weights[0].detach()  # index t·4 + n
    spatial = plot("spatial-relations", given)
    (clip,) = plot("temporal-relations", given)
    for t in range(3):
        block = R[4 * t : 4 * t + 4, 4 * t : 4 * t + 4]
        expected = 100 * block / block.sum(1, keepdim=True)
        torch.testing.assert_close(torch.tensor(spatial[t]["percent"]), expected, rtol=1e-3, atol=0)
        within = torch.tensor(spatial[t]["weight_within_frame"])
        torch.testing.assert_close(within, block.sum(1), rtol=1e-3, atol=0)
    shoes = R[3::4, 3::4]
    expected = 100 * shoes / shoes.sum(1, keepdim=True)
    found = torch.tensor(clip["parts"]["shoes"]["percent"])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


def test_channel_relations_are_percentages_over_all_channels_of_a_clip(files: list[Path]) -> None:
    network = tiny(iau())
    given = inputs(network, files[:2], channels=(6, 1))
    clip = network.trunk.backbone.stem(given.clip(given.subjects[0])[0])
    nodes = clip.flatten(2).flatten(0, 1)  # [T·C, hw]
    relation = 100 * (nodes @ nodes.mT).softmax(-1).detach()
    second = plot("channel-relations", given)[1]
    expected = relation[[8 + 6, 8 + 1]][:, [8 + 6, 8 + 1]]
    torch.testing.assert_close(torch.tensor(second["percent"]), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        torch.tensor(second["before"]), clip[1, [6, 1]].detach(), rtol=1e-3, atol=1e-4
    )


def test_channels_that_do_not_exist_are_refused(files: list[Path]) -> None:
    with pytest.raises(ConfigError, match="--channel 8: found a block of 8 channels"):
        plot("channel-relations", inputs(tiny(iau()), files[:1], channels=(8,)))


def test_receptive_fields_are_rows_of_s(files: list[Path]) -> None:
    network = tiny(ia())
    given = inputs(network, files[:1], positions=((0.99, 0.01), (0.0, 1.0)))
    x = network.trunk.backbone.stem(given.clip(given.subjects[0])[0])
    (block,) = modules_of(network, SpatialUpdate).values()
    S = block.relation(x.flatten(2), *GRID)[0].detach()
    (row,) = plot("receptive-fields", given)
    assert row["positions"] == [(0, 6), (7, 0)]
    fields = torch.tensor(row["fields"])
    torch.testing.assert_close(fields[0], S[6].reshape(GRID), rtol=1e-3, atol=0)
    torch.testing.assert_close(fields[1], S[7 * 7].reshape(GRID), rtol=1e-3, atol=0)
    assert row["channels"] == [5]  # 11 and 121 do not exist in this block
    (contexts,) = plot("contexts", given)
    assert list(contexts)[2:] == ["K = 1", "K = 2", "K = 3", "all K", "with location"]
    torch.testing.assert_close(torch.tensor(contexts["with location"]), fields, rtol=1e-3, atol=0)


def test_masks_and_relations_of_rga(files: list[Path]) -> None:
    network = tiny(rga())
    given = inputs(network, files[:1], positions=((0.5, 0.0),))
    x = network.trunk.backbone.stem(given.clip(given.subjects[0])[0]).flatten(2)
    (attention,) = modules_of(network, RelationAttention).values()
    (row,) = plot("masks", given)
    mask = torch.tensor(row["masks"]["stage2"])
    torch.testing.assert_close(mask, attention(x).detach().reshape(GRID), rtol=1e-3, atol=0)
    (row,) = plot("position-relations", given)
    expected = attention.affinity(x)[0, 3].detach().reshape(GRID)
    torch.testing.assert_close(torch.tensor(row["relations"][0]), expected, rtol=1e-3, atol=1e-5)


def test_relations_of_a_non_local_block_are_shown_within_each_frame(files: list[Path]) -> None:
    network = tiny(NonLocal(CHANNELS))
    given = inputs(network, files[:2], positions=((0.0, 0.0),))
    frames = network.trunk.backbone.stem(given.clip(given.subjects[0])[0])
    (block,) = modules_of(network, NonLocal).values()
    M = GRID[0] * GRID[1]
    expected = block.relation(frames[None])[0, M, M:].detach().reshape(GRID)
    second = plot("position-relations", given)[1]
    torch.testing.assert_close(torch.tensor(second["relations"][0]), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rescaling": "l1", "backbone_attention": True},
        {"deep_pooling": "mean", "deep_reduction": "conv", "deep_attention": False},
    ],
    ids=str,
)
def test_class_maps_of_pfsa_sum_to_the_logits_without_biases(
    options: dict[str, object], files: list[Path]
) -> None:
    torch.manual_seed(0)
    size = (96, 32)
    network = checkpoint.create_model(
        "pfsa", num_ids=4, input_size=size, options={"backbone": "resnet18", **options}
    ).eval()
    assert isinstance(network, PFSA)
    clip = torch.randn(1, 2, 3, *size)
    with record({"trunk": network.trunk}) as calls:
        output = network(clip)
    trunk = calls["trunk"].output
    maps = stage_class_maps(network, trunk, 2)
    assert network.head.whole is not None
    biased = [(output.deep_logits[k][0, 2], network.deep[k].classifier.bias[2]) for k in range(3)]
    for stage, (logit, bias) in enumerate(biased, 1):
        torch.testing.assert_close(maps[stage].sum(), logit - bias, rtol=1e-3, atol=1e-5)
    if not network.config.backbone_attention:
        (gradient,) = torch.autograd.grad(output.logits[0][0, 2], trunk.maps[3])
        expected = (gradient * trunk.maps[3]).sum(2)[0]
        torch.testing.assert_close(maps[4], expected, rtol=1e-3, atol=1e-7)

    network.size = size  # type: ignore[assignment]
    (row,) = plot("class-maps", inputs(network, files[:1]))
    assert list(row["class_maps"]) == ["stage1", "stage2", "stage3", "stage4"]


def test_grad_cam_of_a_linear_head_is_its_weights_times_the_map() -> None:
    network = tiny()
    clip = torch.randn(1, 2, 3, *SIZE)
    found = grad_cam(network, clip)
    features = network.trunk(clip).maps[-1][0]  # [T, C, h, w]
    logits = network(clip).logits[0][0]
    assert network.head.classifier is not None
    best = int(logits.argmax())
    assert found.score_of == f"logit of class {best}"
    assert found.score == pytest.approx(float(logits[best].detach()))
    weights = network.head.classifier.weight[best] / features[:, 0].numel()
    expected = torch.einsum("c,tchw->thw", weights, features).relu().detach()
    torch.testing.assert_close(found.maps[0], expected, rtol=1e-4, atol=1e-7)


def test_grad_cam_of_the_cosine_follows_its_gradient() -> None:
    network = tiny(num_ids=0)
    first, second = torch.randn(2, 1, 1, 3, *SIZE)
    a, b = (network.embed(clip)[0].detach() for clip in (first, second))
    found = grad_cam_pair(network, first, second)
    cosine = float(a @ b / (a.norm() * b.norm()))
    assert [cam.score for cam in found] == pytest.approx([cosine, cosine])
    for cam, clip, own, other in ((found[0], first, a, b), (found[1], second, b, a)):
        gradient = (other / other.norm() - cosine * own / own.norm()) / own.norm()
        features = network.trunk(clip).maps[-1][0].detach()
        weights = gradient / features[0, 0].numel()
        expected = torch.einsum("c,tchw->thw", weights, features).relu()
        torch.testing.assert_close(cam.maps[0], expected, rtol=1e-3, atol=1e-6)


def test_grad_cam_of_a_normalised_embedding_without_classifier_needs_a_second_image() -> None:
    torch.manual_seed(0)
    size = (96, 32)
    network = checkpoint.create_model("pcb", input_size=size, options={"backbone": "resnet18"})
    first, second = torch.randn(2, 1, 1, 3, *size)
    with pytest.raises(ConfigError, match="Add a second image: --compare FILE"):
        grad_cam(network.eval(), first)
    assert grad_cam_pair(network, first, second)[0].maps[0].shape == (1, 6, 2)
    with pytest.raises(ConfigError, match="both images have the same embedding"):
        grad_cam_pair(network, first, first)


@pytest.mark.parametrize("arch", list_archs())
def test_every_architecture_has_grad_cam(arch: str) -> None:
    torch.manual_seed(0)
    spec = get_arch(arch)
    options = {"backbone": "resnet18"}
    size = (32, 32) if arch == "iaunet-cifar" else (192, 96)
    network = checkpoint.create_model(arch, num_ids=3, input_size=size, options=options).eval()
    assert AttentionFigure.GRAD_CAM in available_figures(network)
    found = grad_cam(network, torch.randn(1, 1, 3, *size))
    assert len(found.maps) == getattr(spec.config(), "branches", 1)
    for cam in found.maps:
        assert cam.shape[1:] == network.backbone.map_size(4, size)
        assert torch.isfinite(cam).all() and cam.min() >= 0


@pytest.mark.parametrize(
    ("block", "figures"),
    [
        (None, ["grad-cam"]),
        (
            iau(),
            [
                *("part-maps", "spatial-relations", "temporal-relations"),
                *("channel-relations", "grad-cam"),
            ],
        ),
        (ia(), ["channel-relations", "receptive-fields", "contexts", "grad-cam"]),
        (rga(), ["masks", "position-relations", "grad-cam"]),
        (build_gate("cbam-s", 8, positions=56, reduction=4), ["masks", "grad-cam"]),
        (build_gate("cbam-c", 8, positions=56, reduction=4), ["grad-cam"]),
    ],
    ids=["none", "iau", "ia", "rga", "cbam-s", "cbam-c"],
)
def test_figures_follow_from_the_blocks(block: Block | None, figures: list[str]) -> None:
    assert [str(name) for name in available_figures(tiny(block))] == figures


def test_a_figure_that_the_network_lacks_is_refused_with_those_it_has(files: list[Path]) -> None:
    given = inputs(tiny(rga()), files[:1])
    with pytest.raises(
        ConfigError, match=r"no part-maps\. It has: masks, position-relations, grad-cam"
    ):
        plot("part-maps", given)
    with pytest.raises(ConfigError, match=r"temporal-relations needs a clip. Add: --tracklet"):
        plot("temporal-relations", inputs(tiny(iau()), files[:1]))


def test_recording_changes_no_bit_and_leaves_nothing_behind() -> None:
    network = tiny(iau())
    clip = torch.randn(1, 2, 3, *SIZE)
    before = network.embed(clip)
    with record(dict(network.named_modules())):
        assert torch.equal(network.embed(clip), before)
    assert not any(module._forward_hooks for module in network.modules())


def test_a_heat_map_is_upright_and_aligned_with_the_image(tmp_path: Path) -> None:
    """The bright region of an image is where a network that responds to brightness looks."""
    pixels = np.zeros((64, 56, 3), np.uint8)
    pixels[:16, 42:] = 255  # top right
    file = tmp_path / "bright.png"
    Image.fromarray(pixels).save(file)
    network = tiny()
    nn.init.ones_(network.trunk.backbone.conv.weight)  # type: ignore[union-attr]
    assert network.head.classifier is not None
    nn.init.ones_(network.head.classifier.weight)
    given = inputs(network, [file])
    given = dataclasses.replace(given, preprocess=Preprocess(size=SIZE, mean=(0, 0, 0)))
    ((_, figure),) = plot_figures(given, [AttentionFigure.GRAD_CAM])
    (picture,) = given.pictures(given.subjects[0])
    shown = figure.sheet.rows[0].cells[1]
    assert shown is not None and shown.size == picture.size
    red, _, blue = np.asarray(shown).astype(int).transpose(2, 0, 1)
    height, width = red.shape
    corner = (slice(0, height // 5), slice(4 * width // 5, width))
    assert (red[corner] > blue[corner]).all()
    assert (red[height // 2 :] < blue[height // 2 :]).all()
    assert (red[:, : width // 2] < blue[:, : width // 2]).all()


def test_aligned_corners_put_the_centres_of_the_corner_cells_on_the_corners() -> None:
    picture = Image.new("RGB", (40, 80))
    values = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    aligned = np.asarray(heat_map(picture, values, low=0, high=1, aligned_corners=True))
    cells = np.asarray(heat_map(picture, values, low=0, high=1))
    assert (aligned[0, 0] == cells[0, 0]).all()
    assert (cells[19, 9] == cells[0, 0]).all()  # the centre of the first cell
    assert not (aligned[19, 9] == aligned[0, 0]).all()


def test_positions_are_fractions_and_frames_evenly_spaced() -> None:
    assert cell_of((0.0, 0.0), 8, 4) == (0, 0)
    assert cell_of((1.0, 1.0), 8, 4) == (7, 3)
    assert cell_of((0.6, 0.3), 10, 10) == (3, 6)
    assert evenly_spaced(11, 3) == [0, 5, 10]
    assert evenly_spaced(2, 6) == [0, 1]
    assert evenly_spaced(9, 1) == [0]
