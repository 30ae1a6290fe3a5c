"""The relations that attention blocks give away are those of the papers' equations."""

import pytest
import torch
import torch.nn.functional as F
from agreement import randomise
from slow_blocks import slow_attention, slow_linear, slow_norm, slow_softmax

from reidkit.models.archs.pfsa import attention_weights, spatial_attention
from reidkit.models.blocks.ciau import channel_relation, related_channels, related_channels_l2
from reidkit.models.blocks.nonlocal_block import NonLocal
from reidkit.models.blocks.rga import RelationAttention
from reidkit.models.blocks.sia import SpatialUpdate
from reidkit.models.blocks.stiau import PartAttention, PartExchange


def weights_of(block):
    return dict(block.state_dict())


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_part_relations_are_those_of_equations_1_to_4():
    exchange = randomise(PartExchange(4, division=PartAttention(4, parts=3))).eval()
    weights = weights_of(exchange)
    B, T, N = 1, 2, 3
    x = torch.randn(B, T, 4, 3, 2, dtype=torch.double)
    found = exchange.exchange(x)

    maps = slow_attention(x, weights, prefix="division.", training=False)[0]
    close(found.maps[0], maps)
    nodes = {
        (t, n): slow_linear((maps[t, n] * x[0, t]).sum((1, 2)), weights, "reduce")
        for t in range(T)
        for n in range(N)
    }
    close(found.parts[0], torch.stack(list(nodes.values())))
    whole = slow_linear(x[0].mean((0, 2, 3)), weights, "reduce")
    for row, (t, n) in enumerate(nodes):
        related = [k for k in nodes if (k[0] == t) != (k[1] == n)]
        logits = []
        for k in related:
            pair = torch.cat(((nodes[t, n] - nodes[k]).abs(), whole))
            logit = slow_linear(pair, weights, "relation").unsqueeze(0)
            logits.append(slow_norm(logit, weights, "relation_norm", training=False)[0, 0])
        expected = dict(zip(related, slow_softmax(logits), strict=True))
        for column, k in enumerate(nodes):
            close(found.weights[0, row, column], expected.get(k, torch.zeros((), dtype=x.dtype)))


@pytest.mark.parametrize(
    ("relation", "aggregate"), [("dot", related_channels), ("l2", related_channels_l2)]
)
def test_rows_of_the_channel_relation_aggregate_as_the_block_does(relation, aggregate):
    x = torch.randn(2, 3, 4, 3, 2, dtype=torch.double)
    rows = [11, 0, 5]
    weights = channel_relation(x, rows, relation=relation)
    nodes = x.flatten(3).flatten(1, 2)
    torch.testing.assert_close(
        weights @ nodes, aggregate(x).flatten(3).flatten(1, 2)[:, rows], rtol=1e-6, atol=1e-6
    )


def test_the_relation_of_sia_is_the_fusion_of_appearance_and_location():
    block = SpatialUpdate(3, contexts=(1, 2), sigmas=(1.0, 2.0)).double()
    H, W = 3, 2
    x = torch.randn(1, 3, H, W, dtype=torch.double)
    cells = [(h, w) for h in range(H) for w in range(W)]
    single = block.single_contexts(x.flatten(2), H, W)
    S = block.relation(x.flatten(2), H, W)
    for i, (h, w) in enumerate(cells):
        one = slow_softmax([(x[0, :, h, w] * x[0, :, a, b]).sum() for a, b in cells])
        close(single[0][0, i], torch.stack(one))
        gaps = [-(((b - w) / 1.0) ** 2 + ((a - h) / 2.0) ** 2) / 2 for a, b in cells]
        located = torch.tensor(gaps, dtype=torch.double).exp()
        appearance = torch.stack(slow_softmax(single[0][0, i] * single[1][0, i]))
        close(block.appearance(single)[0, i], appearance)
        expected = torch.stack(slow_softmax(appearance * located / located.sum()))
        # the location prior is computed in float32
        torch.testing.assert_close(S[0, i], expected, rtol=1e-6, atol=1e-6)


def test_the_affinity_of_rga_is_directed():
    attention = randomise(RelationAttention(8, nodes=64)).eval()
    x = torch.randn(1, 8, 64, dtype=torch.double)
    weights = weights_of(attention)

    def embedded(name, node):
        row = slow_linear(x[0, :, node], weights, f"{name}.0").unsqueeze(0)
        return slow_norm(row, weights, f"{name}.1", training=False)[0].clamp(min=0)

    found = attention.affinity(x)[0]
    for i, j in ((3, 40), (40, 3), (7, 7)):
        close(found[i, j], (embedded("theta", i) * embedded("phi", j)).sum())


def test_the_relation_of_a_non_local_block_aggregates_as_the_block_does():
    block = randomise(NonLocal(4)).eval()
    x = torch.randn(2, 3, 4, 3, 2, dtype=torch.double)
    weights = block.relation(x)
    frames = block.g(x.flatten(0, 1)).reshape(2, 3, 2, 3, 2)
    values = frames.transpose(1, 2).flatten(2).mT  # [B, M, inner]
    context = (weights @ values).mT.reshape(2, 2, 3, 3, 2).transpose(1, 2).flatten(0, 1)
    expected = x + block.norm(block.out(context)).reshape(x.shape)
    close(block(x)[0], expected)


@pytest.mark.parametrize("rescaling", ["softmax", "l1"])
def test_the_attention_of_pfsa_sums_to_one_and_scales_the_map(rescaling):
    x = torch.rand(2, 3, 4, 2, dtype=torch.double)
    p = attention_weights(x, rescaling=rescaling)
    close(p.sum((1, 2, 3)), torch.ones(2, dtype=torch.double))
    close(spatial_attention(x, rescaling=rescaling), x * p)
    total = x.sum(1)
    expected = F.softmax(total.flatten(1), 1) if rescaling == "softmax" else total.flatten(1)
    close(p.flatten(1), expected / expected.sum(1, keepdim=True))
