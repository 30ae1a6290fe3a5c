"""Each loss against its formula written out with loops, in float64, with gradients."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from reidkit.config import LossConfig
from reidkit.losses import (
    LOSSES,
    batch_hard_triplet,
    compute_losses,
    cross_entropy,
    needs_masks,
    overlap,
    part_attention,
)
from reidkit.types import Batch, ModelOutput

GENERATOR = torch.Generator().manual_seed(0)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def same_value_and_gradient(ours: Tensor, theirs: Tensor, x: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)
    (first,), (second,) = (torch.autograd.grad(y, x, retain_graph=True) for y in (ours, theirs))
    torch.testing.assert_close(first, second, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_the_smoothed_formula(smoothing: float) -> None:
    logits, labels = random(5, 7).requires_grad_(), torch.tensor([0, 3, 6, 3, 1])
    total = torch.zeros((), dtype=torch.float64)
    for row, label in zip(logits, labels, strict=True):
        log_probabilities = row - row.exp().sum().log()
        for c in range(7):
            target = (1 - smoothing) * (c == label) + smoothing / 7
            total = total - target * log_probabilities[c]
    same_value_and_gradient(cross_entropy(logits, labels, smoothing=smoothing), total / 5, logits)


def distance(a: Tensor, b: Tensor, kind: str) -> Tensor:
    if kind == "cosine":
        return -(a @ b) / (a.norm() * b.norm())
    return ((a - b) ** 2).sum().clamp(min=1e-12).sqrt()


@pytest.mark.parametrize("kind", ["cosine", "euclidean"])
@pytest.mark.parametrize("soft_margin", [False, True])
@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 1, 2], [5, 4, 5, 4, 5, 4]])
def test_triplet_takes_the_hardest_of_each_anchor(
    kind: str, soft_margin: bool, labels: list[int]
) -> None:
    features = random(6, 4).requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for a in range(6):
        positive = [
            distance(features[a], features[b], kind) for b in range(6) if labels[b] == labels[a]
        ]
        negative = [
            distance(features[a], features[b], kind) for b in range(6) if labels[b] != labels[a]
        ]
        gap = torch.stack(positive).max() - torch.stack(negative).min()
        total = total + ((1 + gap.exp()).log() if soft_margin else (gap + 0.3).clamp(min=0))
    ours = batch_hard_triplet(
        features,
        torch.tensor(labels),
        soft_margin=soft_margin,
        distance=kind,  # type: ignore[arg-type]
    )
    same_value_and_gradient(ours, total / 6, features)


@pytest.mark.parametrize("soft_margin", [False, True])
def test_a_batch_of_one_identity_has_no_triplet(soft_margin: bool) -> None:
    features = random(4, 3).requires_grad_()
    loss = batch_hard_triplet(
        features, torch.zeros(4, dtype=torch.long), soft_margin=soft_margin, distance="cosine"
    )
    loss.backward()
    assert loss.item() == 0 and torch.isfinite(features.grad).all()  # type: ignore[arg-type]


def test_part_attention_is_the_mean_cross_entropy_with_the_mask() -> None:
    """A map at the mask's own size needs no resizing, so the loop is the whole formula."""
    maps = torch.rand(2, 3, 4, 2, generator=GENERATOR, dtype=torch.float64).requires_grad_()
    masks = torch.randint(0, 4, (2, 4, 2), generator=GENERATOR).to(torch.uint8)
    total = torch.zeros((), dtype=torch.float64)
    for b in range(2):
        for part in range(3):
            for y in range(4):
                for x in range(2):
                    hit = float(masks[b, y, x] == part + 1)
                    a = maps[b, part, y, x]
                    total = total - (hit * a.log() + (1 - hit) * (1 - a).log())
    same_value_and_gradient(part_attention((maps,), masks, (4, 2)), total / (2 * 3 * 4 * 2), maps)


def test_part_attention_averages_stages_and_aligns_corners() -> None:
    masks = torch.zeros(1, 5, 3, dtype=torch.uint8)
    masks[0, 0] = 1  # the top row is part 1
    coarse = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]).view(1, 1, 3, 2)
    assert part_attention((coarse,), masks, (5, 3)).item() == 0  # rows 0, 2, 4 of the mask
    half = torch.full((1, 1, 3, 2), 0.5)
    mean = part_attention((coarse, half), masks, (5, 3)).item()
    assert mean == pytest.approx(math.log(2) / 2)


def test_part_attention_of_clips_is_that_of_their_frames() -> None:
    maps = torch.rand(2, 3, 4, 8, 4, generator=GENERATOR)
    masks = torch.randint(0, 5, (2, 3, 8, 4), generator=GENERATOR).to(torch.uint8)
    torch.testing.assert_close(
        part_attention((maps,), masks, (8, 4)),
        part_attention((maps.flatten(0, 1),), masks.flatten(0, 1), (8, 4)),
    )


def test_part_attention_of_masks_stored_larger_than_their_images_uses_the_images_sizes() -> None:
    maps = torch.rand(2, 3, 4, 8, 4, generator=GENERATOR)
    masks = torch.randint(0, 5, (2, 3, 16, 8), generator=GENERATOR).to(torch.uint8)
    sizes = torch.tensor([[[12, 6], [9, 8], [16, 8]], [[10, 5], [11, 7], [8, 4]]])
    frames = [(maps[b, t], masks[b, t], sizes[b, t]) for b in range(2) for t in range(3)]
    expected = torch.stack(
        [part_attention((m[None],), mask[None], (32, 16), size[None]) for m, mask, size in frames]
    )
    found = part_attention((maps,), masks, (32, 16), sizes)
    torch.testing.assert_close(found, expected.mean())
    assert not torch.isclose(found, part_attention((maps,), masks, (32, 16)), rtol=1e-3)


def test_losses_of_a_batch_of_clips_take_the_size_of_their_frames() -> None:
    labels = torch.tensor([0, 1])
    maps = torch.rand(2, 3, 4, 8, 4, generator=GENERATOR)
    masks = torch.randint(0, 5, (2, 3, 16, 8), generator=GENERATOR).to(torch.uint8)
    output = ModelOutput(features=random(2, 6).float(), logits=(), part_maps=(maps,))
    batch = Batch(torch.zeros(2, 3, 3, 32, 16), labels, labels, masks)
    weights = LossConfig(identity=0, triplet=0, part_attention=1)
    expected = part_attention((maps,), masks, (32, 16))
    assert torch.equal(compute_losses(output, batch, weights)["part_attention"], expected)


def test_losses_stay_float32_under_autocast() -> None:
    maps = torch.rand(1, 2, 4, 4).bfloat16()
    empty = torch.zeros(1, 4, 4, dtype=torch.uint8)
    with torch.autocast("cpu", torch.bfloat16):
        loss = part_attention((maps,), empty, (4, 4))
        triplet = batch_hard_triplet(
            torch.randn(4, 8).bfloat16(), torch.tensor([0, 0, 1, 1]), distance="cosine"
        )
    assert loss.dtype == triplet.dtype == torch.float32
    assert torch.equal(loss, part_attention((maps,), empty, (4, 4)))


def test_total_is_the_weighted_sum_and_a_weight_of_zero_leaves_a_loss_out() -> None:
    """PFSA: 0.2 * main + 0.8 * sum of stripes + 0.2 * sum of deep supervision."""
    labels = torch.tensor([0, 1])
    logits = [random(2, 3) for _ in range(4)]
    output = ModelOutput(
        features=random(2, 4),
        logits=(logits[0],),
        part_logits=(logits[1], logits[2]),
        deep_logits=(logits[3],),
    )
    batch = Batch(torch.zeros(2, 3, 4, 4), labels, labels)
    weights = LossConfig(
        identity=0.2, smoothing=0.0, triplet=0.0, part_attention=0.0, parts_identity=0.8, deep=0.2
    )
    losses = compute_losses(output, batch, weights)
    each = [cross_entropy(x, labels) for x in logits]
    assert set(losses) == {"identity", "parts_identity", "deep", "total"}
    expected = 0.2 * each[0] + 0.8 * (each[1] + each[2]) + 0.2 * each[3]
    torch.testing.assert_close(losses["total"], expected)


def every_output() -> tuple[ModelOutput, Batch]:
    """Outputs for every loss in the table: two identities, four samples, three classes."""
    labels = torch.tensor([0, 0, 1, 1])
    output = ModelOutput(
        features=random(4, 6).float(),
        logits=tuple(random(4, 3).float() for _ in range(2)),
        part_logits=tuple(random(4, 3).float() for _ in range(3)),
        deep_logits=(random(4, 3).float(),),
        part_maps=(torch.rand(4, 4, 4, 2, generator=GENERATOR),),
        class_maps=tuple(torch.rand(4, 3, 4, 2, generator=GENERATOR) for _ in range(2)),
    )
    masks = torch.randint(0, 5, (4, 8, 4), generator=GENERATOR).to(torch.uint8)
    return output, Batch(torch.zeros(4, 3, 16, 8), labels, labels, masks)


def test_the_table_sums_the_same_functions_in_the_same_order_bit_for_bit() -> None:
    output, batch = every_output()
    weights = LossConfig(
        identity=0.3, triplet=0.7, part_attention=0.5, parts_identity=0.9, deep=0.11, overlap=1.3
    )
    assert batch.masks is not None

    def each(logits: tuple[Tensor, ...]) -> Tensor:
        return torch.stack([cross_entropy(x, batch.labels, smoothing=0.1) for x in logits])

    expected = {
        "identity": each(output.logits).mean(),
        "parts_identity": each(output.part_logits).sum(),
        "deep": each(output.deep_logits).sum(),
        "triplet": batch_hard_triplet(output.features, batch.labels),
        "part_attention": part_attention(output.part_maps, batch.masks, batch.images.shape[-2:]),
        "overlap": overlap(output.class_maps, batch.labels),
    }
    total = torch.stack([getattr(weights, name) * x for name, x in expected.items()]).sum()
    found = compute_losses(output, batch, weights)
    assert list(found) == [*expected, "total"]
    assert all(torch.equal(found[name], x) for name, x in expected.items())
    assert torch.equal(found["total"], total)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_in_the_table_has_a_weight_and_can_be_used_alone(name: str) -> None:
    output, batch = every_output()
    alone = {other: float(other == name) for other in LOSSES}
    found = compute_losses(output, batch, LossConfig(**alone))  # type: ignore[arg-type]
    assert set(found) == {name, "total"} and found[name].item() > 0


def test_settings_alone_say_whether_masks_are_needed() -> None:
    assert needs_masks(LossConfig(part_attention=0.5))
    assert not needs_masks(LossConfig(part_attention=0.0, overlap=1.0))
    output, batch = every_output()
    without = dataclasses.replace(batch, masks=None)
    assert "part_attention" not in compute_losses(output, without, LossConfig())


def test_classifiers_that_a_network_does_not_have_are_left_out() -> None:
    output, batch = every_output()
    plain = dataclasses.replace(output, part_logits=(), deep_logits=())
    losses = compute_losses(plain, batch, LossConfig(parts_identity=1.0, deep=1.0))
    assert set(losses) == {"identity", "triplet", "part_attention", "total"}


def test_part_attention_without_part_maps_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"set loss\.part_attention to 0"):
        part_attention((), torch.zeros(1, 4, 4, dtype=torch.uint8), (4, 4))


def test_overlap_is_the_soft_intersection_over_union_of_the_true_classes_maps() -> None:
    maps = [random(3, 5, 4, 2).requires_grad_() for _ in range(3)]
    labels = torch.tensor([4, 0, 2])
    total = torch.zeros((), dtype=torch.float64)
    for b in range(3):
        scaled = [m[b, labels[b]].clamp(min=0) / m[b, labels[b]].max() for m in maps]
        cells = [(torch.stack([s[y, x] for s in scaled])) for y in range(4) for x in range(2)]
        total = total + sum(c.min() for c in cells) / sum(c.max() for c in cells)
    same_value_and_gradient(overlap(tuple(maps), labels), total / 3, maps[1])
    same = maps[0]
    assert overlap((same, same), labels).item() == pytest.approx(1)


def test_overlap_does_not_depend_on_the_scale_of_a_branch() -> None:
    """A branch's map is scaled by its own maximum; of one cell, the union is below 1."""
    labels = torch.tensor([0])
    first = torch.tensor([[[[1e-4, 0.0]]]], dtype=torch.float64)
    second = torch.tensor([[[[3.0, 0.0]]]], dtype=torch.float64)
    assert overlap((first, second), labels).item() == pytest.approx(1)
    assert overlap((torch.zeros_like(first), second), labels).item() == 0


def test_branches_that_attend_to_different_places_do_not_overlap() -> None:
    left, right = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    left[..., 0], right[..., 1] = 1, 1
    assert overlap((left, right), torch.tensor([0])).item() == 0
    with pytest.raises(ValueError, match=r"set loss\.overlap to 0"):
        overlap((left,), torch.tensor([0]))
