"""CIAU and STIAU against the equations, forward and backward, in both modes, with edge cases."""

import pytest
import torch
from agreement import assert_agree, randomise
from slow_blocks import slow_channel_update, slow_part_exchange

from reidkit.models.blocks.ciau import CIAU, ChannelUpdate
from reidkit.models.blocks.iau import IAU
from reidkit.models.blocks.stiau import STIAU, PartAttention, PartExchange, neighbours

C = 6
SHAPES = [(2, 1, C, 3, 2), (2, 3, C, 2, 2), (1, 2, C, 2, 2)]


def part_exchange(*, parts=4, pooling="sum", **options):
    return PartExchange(C, division=PartAttention(C, parts=parts, pooling=pooling), **options)


def flat(block):
    """A block's output as one tuple, for `assert_agree`."""

    class Flat(type(block)):
        def forward(self, x):
            y, maps = super().forward(x)
            return (y, *maps)

    block.__class__ = Flat
    return block


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("relation", ["dot", "l2"])
@pytest.mark.parametrize("update", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_ciau_follows_the_papers_equations(shape, update, relation, training):
    block = flat(randomise(CIAU(C, relation=relation, update=update)))

    def slow(x, weights):
        residual = slow_channel_update(
            x, weights, prefix="channel.", relation=relation, training=training
        )
        return (x + residual,)

    # the distance of a channel to itself is a rounding error in the block, exactly 0 in the loop
    tolerance = 1e-9 if relation == "dot" else 1e-6
    x = torch.randn(shape, dtype=torch.double)
    assert_agree(block, slow, x, training=training, tolerance=tolerance)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pooling": "mean"},
        {"relation": "l2"},
        {"interaction": "spatial"},
        {"interaction": "temporal"},
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", SHAPES)
def test_stiau_follows_the_papers_equations(shape, options, training):
    block = flat(randomise(STIAU(part_exchange(**options))))

    def slow(x, weights):
        residual, maps = slow_part_exchange(
            x, weights, prefix="part.", training=training, **options
        )
        return x + residual[..., None, None], maps

    assert_agree(block, slow, torch.randn(shape, dtype=torch.double), training=training)


@pytest.mark.parametrize(
    ("shape", "training"),
    [
        ((1, 1, C, 2, 2), False),  # batch norm cannot be trained on a single frame
        ((2, 1, C, 2, 1), False),
        ((3, 1, C, 2, 1), True),
        ((1, 3, C, 1, 1), False),
        ((1, 3, C, 2, 1), True),
    ],
)
@pytest.mark.parametrize("parts", [1, 2])
def test_stiau_with_one_part_one_frame_one_image(shape, parts, training):
    block = flat(randomise(STIAU(part_exchange(parts=parts))))

    def slow(x, weights):
        residual, maps = slow_part_exchange(x, weights, prefix="part.", training=training)
        return x + residual[..., None, None], maps

    x = torch.randn(shape, dtype=torch.double)
    assert_agree(block, slow, x, training=training, tolerance=1e-8)


@pytest.mark.parametrize("order", ["ciau-stiau", "stiau-ciau", "parallel"])
def test_iau_applies_its_branches_in_the_given_order(order):
    block = flat(randomise(IAU(channel=ChannelUpdate(C), part=part_exchange(), order=order)))

    def channel(x, weights):
        return slow_channel_update(x, weights, prefix="channel.", training=True)

    def part(x, weights):
        residual, maps = slow_part_exchange(x, weights, prefix="part.", training=True)
        return residual[..., None, None], maps

    def slow(x, weights):
        if order == "parallel":
            residual, maps = part(x, weights)
            return x + channel(x, weights) + residual, maps
        if order == "ciau-stiau":
            x = x + channel(x, weights)
        residual, maps = part(x, weights)
        x = x + residual
        if order == "stiau-ciau":
            x = x + channel(x, weights)
        return x, maps

    assert_agree(block, slow, torch.randn(2, 2, C, 2, 2, dtype=torch.double), training=True)


def test_iau_is_initially_the_identity():
    block = IAU(channel=ChannelUpdate(C), part=part_exchange())
    x = torch.randn(3, 2, C, 4, 2)
    for training in (True, False):
        assert torch.equal(block.train(training)(x)[0], x)


def test_neighbours_are_other_parts_of_the_frame_and_the_same_part_in_other_frames():
    T, N = 3, 4
    allowed = neighbours(T, N, interaction="spatial-temporal")
    for i in range(T * N):
        known = {j for j in range(T * N) if (i // N == j // N) != (i % N == j % N)}
        assert set(allowed[i].nonzero()[:, 0].tolist()) == known
    assert (allowed.sum(1) == N + T - 2).all()
    assert neighbours(T, N, interaction="spatial").sum() == T * N * (N - 1)
    assert neighbours(T, N, interaction="temporal").sum() == T * N * (T - 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_large_activations_stay_finite_under_autocast(dtype):
    block = IAU(channel=ChannelUpdate(C), part=part_exchange())
    torch.nn.init.ones_(block.channel.norm.weight)
    torch.nn.init.ones_(block.part.frame_norm.weight)
    x = 300 * torch.rand(2, 2, C, 16, 8)  # a channel's product with itself is far above 65504
    with torch.autocast("cpu", dtype=dtype):
        y, maps = block(x.to(dtype))
    assert y.isfinite().all() and maps[0].isfinite().all()
