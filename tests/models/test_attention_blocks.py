"""RGA, SIA and the comparison blocks against loops in float64, forward and backward."""

import pytest
import torch
from agreement import assert_agree, randomise
from slow_attention import (
    slow_cbam_channel,
    slow_cbam_spatial,
    slow_fc_channel,
    slow_fc_spatial,
    slow_non_local,
    slow_parameter_free,
    slow_rga,
    slow_simplified_non_local,
    slow_spatial_update,
    slow_squeeze_excite,
    under,
)
from slow_blocks import slow_channel_update

from reidkit.errors import ConfigError
from reidkit.models.archs.pfsa import spatial_attention
from reidkit.models.blocks.ciau import ChannelUpdate
from reidkit.models.blocks.gates import (
    SE,
    CBAMChannel,
    CBAMSpatial,
    FCChannel,
    FCSpatial,
    build_gate,
)
from reidkit.models.blocks.nonlocal_block import NonLocal, SimplifiedNonLocal
from reidkit.models.blocks.rga import RGA, RelationAttention
from reidkit.models.blocks.sia import IA, SpatialUpdate, location_prior

modes = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


def single(block, method="forward"):
    """A block whose output is one tensor, as a tuple for `assert_agree`."""

    class Single(type(block)):
        def __call__(self, x):
            found = getattr(self, method)(x)
            return (found[0],) if isinstance(found, tuple) else (found,)

    block.__class__ = Single
    return block


def rga(arrangement, *, channels, grid, **options):
    positions = grid[0] * grid[1]
    return RGA(
        spatial=RelationAttention(channels, nodes=positions, **options)
        if "s" in arrangement
        else None,
        channel=RelationAttention(positions, nodes=channels, **options)
        if "c" in arrangement
        else None,
        grid=grid,
        arrangement=arrangement,
    )


@modes
@pytest.mark.parametrize(
    ("arrangement", "options"),
    [
        ("s", {}),
        ("s", {"embedding": "symmetric"}),
        ("s", {"embedding": "none"}),
        ("s", {"own": False}),
        ("s", {"relations": False}),
    ],
    ids=str,
)
def test_rga_over_positions_follows_the_papers_equations(arrangement, options, training):
    # two reductions by 8 need at least 56 positions, or 64 without the own feature
    grid = (8, 7) if options.get("own", True) else (8, 8)
    block = single(randomise(rga(arrangement, channels=8, grid=grid, **options)), "frames")
    x = torch.randn(2, 8, *grid, dtype=torch.double)
    embedding = options.get("embedding", "asymmetric")

    def slow(x, weights):
        return (
            slow_rga(x, weights, arrangement=arrangement, embedding=embedding, training=training),
        )

    assert_agree(block, slow, x, training=training)


@pytest.mark.parametrize("arrangement", ["c", "sc", "cs", "s//c"])
def test_rga_over_channels_and_its_arrangements(arrangement):
    block = single(randomise(rga(arrangement, channels=56, grid=(8, 7))), "frames")
    x = torch.randn(1, 56, 8, 7, dtype=torch.double)

    def slow(x, weights):
        return (slow_rga(x, weights, arrangement=arrangement, training=False),)

    assert_agree(block, slow, x, training=False)


def test_rga_refuses_a_map_of_another_size():
    block = rga("s", channels=8, grid=(8, 7))
    with pytest.raises(ConfigError, match="found a map of 7x8, expected 8x7"):
        block.frames(torch.zeros(1, 8, 7, 8))


@modes
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"contexts": (1,), "scaled": True},
        {"contexts": (2,)},
        {"contexts": (3, 1), "fusion": "sum"},
        {"contexts": (1, 2), "fusion": "max"},
        {"contexts": (1,), "fusion": "sum"},
        {"contexts": (1, 2), "fusion": "max", "relations": "appearance"},
        {"relations": "appearance"},
        {"relations": "location", "sigmas": (1.0, 2.0)},
    ],
    ids=str,
)
def test_sia_follows_the_papers_equations(options, training):
    block = single(randomise(SpatialUpdate(3, **options)))
    x = 0.7 * torch.randn(2, 3, 4, 3, dtype=torch.double)

    def slow(x, weights):
        return (slow_spatial_update(x, weights, training=training, **options),)

    # the location prior is computed in float32
    assert_agree(block, slow, x, training=training, tolerance=1e-6)


@pytest.mark.parametrize("order", ["spatial-channel", "channel-spatial", "parallel"])
def test_ia_applies_its_branches_in_the_given_order(order):
    block = single(
        randomise(
            IA(spatial=SpatialUpdate(3), channel=ChannelUpdate(3, update=False), order=order)
        ),
        "frames",
    )

    def slow(x, weights):
        def spatial(x):
            return slow_spatial_update(x, under(weights, "spatial."), training=True)

        def channel(x):
            found = slow_channel_update(x.unsqueeze(1), weights, prefix="channel.", training=True)
            return found.squeeze(1)

        if order == "parallel":
            return (x + spatial(x) + channel(x),)
        first, second = (spatial, channel) if order == "spatial-channel" else (channel, spatial)
        x = x + first(x)
        return (x + second(x),)

    x = torch.randn(2, 3, 3, 2, dtype=torch.double)
    assert_agree(block, slow, x, training=True, tolerance=1e-6)


def test_the_location_prior_decreases_with_distance_and_its_rows_sum_to_one():
    prior = location_prior(4, 2, sigma_x=1.0, sigma_y=2.0)
    torch.testing.assert_close(prior.sum(1), torch.ones(8))
    # two cells down with sigma 2 are as far as one cell across with sigma 1
    torch.testing.assert_close(prior[0, 4], prior[0, 1])
    assert prior[0, 0] > prior[0, 2] > prior[0, 4]


@modes
@pytest.mark.parametrize(
    ("block", "slow"),
    [
        (lambda: NonLocal(4), slow_non_local),
        (lambda: SimplifiedNonLocal(4), slow_simplified_non_local),
    ],
)
@pytest.mark.parametrize("frames", [1, 2])
def test_non_local_blocks_attend_to_the_whole_clip(block, slow, frames, training):
    block = single(randomise(block()))
    x = torch.randn(2, frames, 4, 2, 2, dtype=torch.double)
    assert_agree(block, lambda x, w: (slow(x, w, training=training),), x, training=training)


def test_squeeze_and_excitation_scales_the_channels_of_a_clip():
    block = single(randomise(SE(8, reduction=4)))
    x = torch.randn(2, 3, 8, 2, 2, dtype=torch.double)
    assert_agree(block, lambda x, w: (slow_squeeze_excite(x, w),), x, training=True)


@modes
@pytest.mark.parametrize(
    ("block", "slow"),
    [
        (lambda: CBAMChannel(8, reduction=4), lambda x, w, training: slow_cbam_channel(x, w)),
        (CBAMSpatial, slow_cbam_spatial),
        (lambda: FCChannel(8, reduction=4), slow_fc_channel),
        (lambda: FCSpatial(8, positions=12, reduction=4), slow_fc_spatial),
    ],
    ids=["cbam-c", "cbam-s", "fc-c", "fc-s"],
)
def test_gates_follow_their_papers_equations(block, slow, training):
    block = single(randomise(block()))
    x = torch.randn(2, 8, 4, 3, dtype=torch.double)
    assert_agree(block, lambda x, w: (slow(x, w, training=training),), x, training=training)


def test_gates_are_sequential_or_parallel():
    x = torch.rand(2, 8, 4, 3)
    serial = build_gate("cbam-cs", 8, positions=12, reduction=4).eval()
    gated = x * serial.channel(x)
    torch.testing.assert_close(serial.frames(x), gated * serial.spatial(gated))
    parallel = build_gate("fc-s//c", 8, positions=12, reduction=4).eval()
    expected = (x * parallel.channel(x) + x * parallel.spatial(x)) / 2
    torch.testing.assert_close(parallel.frames(x), expected)


def test_residual_blocks_are_initially_the_identity():
    x = torch.randn(3, 2, 8, 4, 2)
    blocks = [
        NonLocal(8),
        SimplifiedNonLocal(8),
        IA(spatial=SpatialUpdate(8), channel=ChannelUpdate(8, update=False)),
    ]
    for block in blocks:
        for training in (True, False):
            assert torch.equal(block.train(training)(x)[0], x)


@pytest.mark.parametrize("rescaling", ["softmax", "l1"])
def test_parameter_free_attention_follows_the_papers_equation(rescaling):
    x = torch.rand(2, 3, 4, 2, dtype=torch.double)
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    found = spatial_attention(mine, rescaling=rescaling)
    expected = slow_parameter_free(theirs, rescaling=rescaling)
    torch.testing.assert_close(found, expected)
    probe = torch.randn_like(x)
    (found * probe).sum().backward()
    (expected * probe).sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad)


def test_parameter_free_attention_of_an_empty_map_is_empty():
    assert not spatial_attention(torch.zeros(1, 2, 3, 2), rescaling="l1").any()
