"""Heads, pooling and stripes against loops and against numbers computed by hand."""

import pytest
import torch
from agreement import assert_agree, randomise
from slow_attention import slow_parameter_free, under
from slow_blocks import slow_linear, slow_norm

from reidkit.models.archs.pfsa import DeepBranch, PFSAConfig
from reidkit.models.heads import Head
from reidkit.models.network import average
from reidkit.models.stripes import StripeHead, cut_stripes, normalised_stripes
from reidkit.registry import get_arch


def small(arch, *, num_ids=3, size=(96, 32), **options):
    spec = get_arch(arch)
    config = spec.config(backbone="resnet18", **options)
    return spec.build(config, num_ids=num_ids, input_size=size).eval()


def test_a_clip_is_averaged_over_positions_and_frames():
    clip = torch.arange(24.0).reshape(1, 3, 2, 2, 2)
    # channel 0 holds 0..3, 8..11 and 16..19; channel 1 four more each
    assert torch.equal(average(clip), torch.tensor([[9.5, 13.5]]))


@pytest.mark.parametrize("arch", ["baseline", "ianet", "rga-sc"])
def test_the_mean_of_clips_embeddings_is_the_embedding_of_the_whole_tracklet(arch):
    model = small(arch, size=(192, 96))
    torch.nn.init.uniform_(model.head.bn.weight)
    tracklet = torch.randn(1, 4, 3, 192, 96)
    with torch.inference_mode():
        whole = model.embed(tracklet)
        halves = (model.embed(tracklet[:, :2]) + model.embed(tracklet[:, 2:])) / 2
    torch.testing.assert_close(whole, halves, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["bn", "bnneck", "plain"])
def test_heads_normalise_and_classify(kind, training):
    head = randomise(Head(4, num_ids=3, kind=kind))
    head.__class__ = type("Flat", (Head,), {"forward": flat_head})

    def slow(x, weights):
        normed = x if kind == "plain" else slow_norm(x, weights, "bn", training=training)
        logits = torch.stack([slow_linear(row, weights, "classifier") for row in normed])
        return (x if kind == "bnneck" else normed), logits

    assert ("classifier.bias" in head.state_dict()) == (kind != "bnneck")
    assert_agree(head, slow, torch.randn(5, 4, dtype=torch.double), training=training)


def flat_head(self, pooled):
    features, logits = Head.forward(self, pooled)
    return (features, *logits)


def test_rgas_bnneck_has_no_trainable_bias():
    head = Head(4, num_ids=3, kind="bnneck")
    assert not head.bn.bias.requires_grad and not head.bn.bias.any()
    assert 0 < head.classifier.weight.abs().max() < 0.01


def test_the_embedding_is_taken_before_or_after_batch_norm():
    x = torch.randn(2, 4)
    for kind in ("bn", "bnneck"):
        after, before = (
            Head(4, num_ids=0, kind=kind, embedding=e).eval() for e in ("post-bn", "pre-bn")
        )
        after.bn.running_mean.fill_(1.0)
        assert torch.equal(before.embed(x), x)
        torch.testing.assert_close(after.embed(x), x - 1, rtol=1e-4, atol=1e-4)


def test_a_reducing_head_embeds_through_linear_norm_and_relu():
    head = Head(4, num_ids=2, kind="plain", reduced=3).eval()
    x = torch.randn(2, 4)
    linear = head.reduce[0]
    expected = (x @ linear.weight.T + linear.bias).clamp(min=0) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(head.embed(x), expected)
    assert head.embedding_dim == 3 and head(x).logits[0].shape == (2, 2)


def test_stripes_are_averages_of_rows_from_top_to_bottom():
    clip = torch.zeros(1, 2, 1, 12, 2)
    clip[0, 0, 0] = torch.arange(12.0)[:, None]
    clip[0, 1, 0] = 2 + torch.arange(12.0)[:, None]
    # rows 0 and 1 average 0.5, and the second frame is higher by 2
    expected = torch.tensor([[[1.5, 3.5, 5.5, 7.5, 9.5, 11.5]]])
    assert torch.equal(cut_stripes(clip), expected)


def test_stripes_are_normalised_and_concatenated():
    stripes = torch.rand(2, 3, 6)
    found = normalised_stripes(stripes)
    for n in range(6):
        expected = stripes[:, :, n] / stripes[:, :, n].norm(dim=1, keepdim=True)
        torch.testing.assert_close(found[:, 3 * n : 3 * n + 3], expected)


@pytest.mark.parametrize("training", [True, False])
def test_stripes_share_a_convolution_and_have_separate_classifiers(training):
    head = randomise(StripeHead(4, num_ids=3, parts=True, whole=True, reduced=2, dropout=0.0))
    head.__class__ = type("Flat", (StripeHead,), {"forward": flat_stripes})

    def slow(x, weights):
        rows = torch.stack(
            [slow_linear(x[b, :, s], weights, "conv") for b in (0, 1) for s in range(6)]
        )
        reduced = slow_norm(rows, weights, "norm", training=training).clamp(min=0).reshape(2, 6, 2)
        parts = [
            torch.stack([slow_linear(reduced[b, s], weights, f"parts.{s}") for b in (0, 1)])
            for s in range(6)
        ]
        whole = [slow_linear(sum(reduced[b]) / 6, weights, "whole") for b in (0, 1)]
        return (*parts, torch.stack(whole))

    assert_agree(head, slow, torch.randn(2, 4, 6, dtype=torch.double), training=training)


def flat_stripes(self, stripes):
    _, part_logits, logits = StripeHead.forward(self, stripes)
    return (*part_logits, *logits)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rescaling": "l1"},
        {"deep_attention": False},
        {"deep_reduction": "conv", "deep_pooling": "mean"},
        {"rescaling": "l1", "deep_reduction": "conv", "deep_pooling": "mean"},
    ],
    ids=str,
)
def test_deep_supervision_is_attention_pooling_and_a_classifier(options):
    config = PFSAConfig(**options)
    branch = randomise(DeepBranch(5, num_ids=3, config=config))
    x = torch.rand(2, 1, 5, 3, 2, dtype=torch.double)
    frames = x[:, 0]
    if config.deep_attention:
        frames = slow_parameter_free(frames, rescaling=config.rescaling)
    expected = []
    weights = branch.state_dict()
    for image in frames:
        pooled = torch.stack([channel.sum() for channel in image])
        pooled = pooled if config.deep_pooling == "sum" else pooled / 6
        if config.deep_reduction == "conv":
            pooled = slow_linear(pooled, under(weights, ""), "conv")
        expected.append(slow_linear(pooled, weights, "classifier"))
    torch.testing.assert_close(branch(x), torch.stack(expected))


def test_pfsa_without_parts_and_deep_supervision_is_the_papers_backbone_row():
    plain = small("pfsa", parts=False, deep_supervision=False)
    output = plain(torch.rand(2, 3, 96, 32))
    assert len(output.logits) == 1 and not output.part_logits and not output.deep_logits
    attended = small("pfsa", backbone_attention=True)
    attended.load_state_dict(small("pfsa").state_dict())
    x = torch.rand(1, 3, 96, 32)
    assert attended.embed(x).shape == (1, 6 * 512)


def test_pcb_embeds_pooled_or_reduced_stripes():
    x = torch.rand(2, 3, 96, 32)
    assert small("pcb").embed(x).shape == (2, 6 * 512)
    assert small("pcb", feature="reduced").embed(x).shape == (2, 6 * 256)


def test_camas_class_maps_average_to_the_classifier_without_batch_norm():
    model, x = small("cama", branches=2), torch.rand(2, 2, 3, 96, 32)
    last_maps, _ = model._last_maps(x)
    output = model(x)
    assert len(output.class_maps) == len(output.logits) == 2
    for found, last, head in zip(output.class_maps, last_maps, model.heads, strict=True):
        expected = average(last) @ head.classifier.weight.T
        torch.testing.assert_close(found.mean((2, 3)), expected, rtol=1e-4, atol=1e-5)
