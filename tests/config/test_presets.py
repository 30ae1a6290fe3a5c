"""Every preset reproduces its paper, or else its authors' code (source: the preset's first lines).

Learning rates are compared with each epoch's value written out, orders of samples with loops.
"""

from __future__ import annotations

import numpy as np
import pytest

from reidkit.config import (
    RunConfig,
    default_preset,
    list_presets,
    load_run_config,
    preset_layer,
    read_preset,
    set_layer,
    with_recipe,
)
from reidkit.data.sampler import epoch_batches
from reidkit.data.transforms import sample_augmentation
from reidkit.registry import list_archs
from reidkit.training.optim import learning_rate


def recipe(name: str) -> RunConfig:
    return load_run_config([preset_layer(name)])


def warm(e: int) -> float:
    return 8e-6 + (8e-4 - 8e-6) * e / 20


RATES = {
    "iaunet": [3.5e-4] * 20 + [3.5e-5] * 20 + [3.5e-6] * 20,
    "iaunet-video": [3e-4] * 40 + [3e-5] * 40 + [3e-6] * 40 + [3e-7] * 30,
    "iaunet-cifar": [0.1] * 100 + [0.01] * 100 + [0.001] * 100 + [0.0001] * 7,
    "iaunet-cifar-mlfn": [0.1] * 100 + [0.01] * 100 + [0.001] * 100 + [0.0001] * 7,
    "ianet": [3e-4] * 20 + [3e-5] * 20 + [3e-6] * 20,
    "rga": [warm(e) for e in range(20)]
    + [8e-4] * 60
    + [8e-4 / 2**k for k in range(1, 8) for _ in range(40)]
    + [3.125e-6] * 240,
    "pfsa": [0.1] * 40 + [0.01] * 60,
    "pfsa-market1501": [0.1] * 40 + [0.01] * 60,
    "pfsa-released": [0.1] * 40 + [0.01] * 40 + [0.001] * 20,
    "pcb": [0.1] * 40 + [0.01] * 20,
    "cama": [3.5e-4] * 20 + [3.5e-5] * 20 + [3.5e-6] * 20,
    "strong-baseline": [3.5e-5 + 3.15e-4 * e / 10 for e in range(10)]
    + [3.5e-4] * 30
    + [3.5e-5] * 30
    + [3.5e-6] * 50,
}


@pytest.mark.parametrize("name", list_presets())
def test_the_learning_rate_of_every_epoch_is_the_published_one(name: str) -> None:
    config = recipe(name)
    rates = [
        learning_rate(config.schedule, config.optim.lr, epoch)
        for epoch in range(config.schedule.epochs)
    ]
    assert rates == pytest.approx(RATES[name], rel=1e-12)


# kind, batch, K; optimiser, weight decay, backbone factor; interpolation, size
SETTINGS = {
    "iaunet": ("groups", 64, 4, "adam", 5e-4, 1.0, "bicubic", (256, 128)),
    "iaunet-video": ("groups", 32, 4, "adam", 5e-4, 1.0, "bicubic", (256, 128)),
    "iaunet-cifar": ("groups", 256, 4, "sgd", 5e-4, 1.0, "bicubic", (32, 32)),
    "iaunet-cifar-mlfn": ("shuffle", 256, 4, "sgd", 5e-4, 1.0, "bicubic", (32, 32)),
    "ianet": ("shuffle", 32, 4, "adam", 5e-4, 1.0, "bicubic", (256, 128)),
    "rga": ("pk", 64, 4, "adam", 5e-4, 1.0, "bilinear", (256, 128)),
    "pfsa": ("shuffle", 48, 4, "sgd", 5e-4, 0.1, "bilinear", (384, 128)),
    "pfsa-market1501": ("shuffle", 48, 4, "sgd", 5e-4, 0.1, "bilinear", (384, 128)),
    "pfsa-released": ("shuffle", 48, 4, "sgd", 5e-4, 0.1, "bilinear", (384, 128)),
    "pcb": ("shuffle", 64, 4, "sgd", 5e-4, 0.1, "bicubic", (384, 128)),
    "cama": ("groups", 64, 4, "adam", 5e-4, 1.0, "bicubic", (256, 128)),
    "strong-baseline": ("pk", 64, 4, "adam", 5e-4, 1.0, "bilinear", (256, 128)),
}


@pytest.mark.parametrize("name", list_presets())
def test_sampler_optimiser_and_input_are_the_published_ones(name: str) -> None:
    c = recipe(name)
    assert SETTINGS[name] == (
        c.sampler.kind,
        c.sampler.batch,
        c.sampler.samples_per_id,
        c.optim.name,
        c.optim.weight_decay,
        c.optim.backbone_factor,
        c.input.interpolation,
        c.input.size,
    )


# identity, smoothing, triplet, part attention, stripes, deep supervision, overlap
LOSSES = {
    "iaunet": (1, 0.1, 1, 0.5, 0, 0, 0),
    "iaunet-video": (1, 0.1, 1, 0.5, 0, 0, 0),
    "iaunet-cifar": (1, 0.1, 1, 0, 0, 0, 0),
    "iaunet-cifar-mlfn": (1, 0, 0, 0, 0, 0, 0),
    "ianet": (1, 0, 0, 0, 0, 0, 0),
    "rga": (1, 0.1, 1, 0, 0, 0, 0),
    "pfsa": (0.2, 0, 0, 0, 0.8, 0.2, 0),
    "pfsa-market1501": (0.2, 0, 0, 0, 0.8, 0.2, 0),
    "pfsa-released": (1, 0, 0, 0, 1, 1, 0),
    "pcb": (6, 0, 0, 0.5, 0, 0, 0),
    "cama": (1, 0.1, 1, 0.5, 0, 0, 1),
    "strong-baseline": (1, 0.1, 1, 0, 0, 0, 0),
}


@pytest.mark.parametrize("name", list_presets())
def test_losses_and_weights_are_the_published_ones(name: str) -> None:
    loss = recipe(name).loss
    assert LOSSES[name] == (
        loss.identity,
        loss.smoothing,
        loss.triplet,
        loss.part_attention,
        loss.parts_identity,
        loss.deep,
        loss.overlap,
    )
    assert loss.margin == 0.3 and not loss.soft_margin
    euclidean = name in ("rga", "strong-baseline")
    assert loss.distance == ("euclidean" if euclidean else "cosine")


def test_erased_areas_are_filled_as_in_each_authors_code() -> None:
    """IAUnet: a colour in normalised space; RGA: the mean; PFSA: noise, at most a fifth."""
    assert recipe("iaunet").augment.erase_value == (0.4914, 0.4822, 0.4465)
    assert recipe("rga").augment.erase_value == (0, 0, 0)
    assert recipe("pfsa").augment.erase_noise and not recipe("iaunet").augment.erase_noise
    assert recipe("pfsa").augment.erase_area == (0.02, 0.2)
    without = [n for n in list_presets() if recipe(n).augment.erase == 0]
    assert without == ["ianet", "iaunet-cifar-mlfn", "pcb", "pfsa-released"]


@pytest.mark.parametrize("name", ["iaunet", "rga", "pfsa"])
def test_erased_boxes_have_the_distribution_of_the_definition(name: str) -> None:
    """Against a loop over the definition with its own random numbers: half of the images, the mean
    area and the quartiles of area and aspect agree within sampling error."""
    config = recipe(name)
    (H, W), n = config.input.size, 24000
    sampled = np.array(
        [
            sample_augmentation(config.augment, (H, W), np.random.default_rng([7, i])).erase
            for i in range(n)
        ]
    )
    rng, reference = np.random.default_rng(8), []
    low, high = config.augment.erase_area
    while len(reference) < n // 2:
        area, aspect = rng.uniform(low, high) * H * W, rng.uniform(0.3, 1 / 0.3)
        h, w = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if h < H and w < W:
            reference.append((h, w))
    boxes = sampled[sampled[:, 2] > 0]
    assert abs(len(boxes) / n - 0.5) < 0.03
    ours, theirs = boxes[:, 2:].astype(float), np.array(reference, float)
    for measure in (lambda b: b[:, 0] * b[:, 1] / (H * W), lambda b: b[:, 0] / b[:, 1]):
        for q in (0.25, 0.5, 0.75):
            expected = np.quantile(measure(theirs), q)
            assert np.quantile(measure(ours), q) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("name", ["iaunet", "rga", "pfsa"])
@pytest.mark.parametrize("seed", [0, 5])
def test_the_order_of_samples_follows_the_samplers_definition(name: str, seed: int) -> None:
    """Against loops that use the same random numbers."""
    sampler, K = recipe(name).sampler, 4
    labels = np.repeat(np.arange(40), np.arange(40) % 9 + 1).tolist()  # 1 to 9 images each
    rng, order = np.random.default_rng([seed, 3]), []
    of = {label: [i for i, x in enumerate(labels) if x == label] for label in range(40)}
    if sampler.kind == "groups":
        groups = []
        for images in of.values():
            mixed = list(rng.permutation(images))
            if len(mixed) < K:
                mixed = list(rng.choice(mixed, K))
            groups += [mixed[k : k + K] for k in range(0, len(mixed) - K + 1, K)]
        order = [int(i) for g in rng.permutation(np.array(groups)) for i in g]
    elif sampler.kind == "pk":
        for label in rng.permutation(40):
            order += [int(i) for i in rng.choice(of[label], K, replace=len(of[label]) < K)]
    else:
        order = [int(i) for i in rng.permutation(len(labels))]
    batches = epoch_batches(labels, sampler, seed=seed, epoch=3)
    flat = [i for batch in batches for i in batch]
    assert flat == order[: len(order) // sampler.batch * sampler.batch]
    assert all(len(batch) == sampler.batch for batch in batches)


def test_cifar_is_trained_from_scratch_by_either_reading_of_the_papers_recipe() -> None:
    """By default with the augmentation of image re-ID, as the paper's last sentence says."""
    assert default_preset("iaunet-cifar", "cifar100") == "iaunet-cifar"
    literal, mlfn = recipe("iaunet-cifar"), recipe("iaunet-cifar-mlfn")
    assert literal.weights == mlfn.weights == "none"
    assert literal.augment == recipe("iaunet").augment
    assert (mlfn.augment.crop, mlfn.augment.crop_padding, mlfn.augment.flip) == ("pad", 4, 0.5)
    assert [name for name in list_presets() if recipe(name).weights != "auto"] == [
        "iaunet-cifar",
        "iaunet-cifar-mlfn",
    ]


def test_pfsa_is_the_papers_form_and_pfsa_released_the_codes() -> None:
    """Eq. 1, sec. 3.1 and 3.3 against the code's deep supervision."""

    def form(name: str) -> tuple[str, str, str]:
        options = recipe(name).arch.options
        return options.rescaling, options.deep_reduction, options.deep_pooling

    assert form("pfsa") == form("pfsa-market1501") == ("softmax", "none", "sum")
    assert form("pfsa-released") == ("l1", "conv", "mean")


@pytest.mark.parametrize("arch", list_archs())
def test_every_architecture_has_a_preset_that_fits_it(arch: str) -> None:
    layers = with_recipe([set_layer([f"arch={arch}"])], preset=None, dataset="market1501")
    assert len(layers) == 2
    assert load_run_config(layers).arch.name == arch


@pytest.mark.parametrize("name", list_presets())
def test_every_preset_has_a_title_and_a_source(name: str) -> None:
    about, _ = read_preset(name)
    assert about.title and about.source


def test_the_preset_of_a_data_set_takes_precedence_over_the_general_one() -> None:
    assert default_preset("iaunet", "mars") == "iaunet-video"
    assert default_preset("iaunet", "synth-mars") == "iaunet-video"
    assert default_preset("iaunet", "market1501") == "iaunet"
    assert default_preset("pfsa", "market1501") == "pfsa-market1501"
    assert default_preset("pfsa", "dukemtmc-reid") == "pfsa"
    assert recipe("pfsa-market1501").arch.options.dropout == 0.47
    video = recipe("iaunet-video")
    assert (video.clip.frames, video.clip.stride, video.arch.options.stages) == (4, 8, (2,))


def test_a_presets_options_apply_to_its_own_architecture_only() -> None:
    layers = with_recipe([set_layer(["arch=baseline"])], preset="iaunet-video", dataset="mars")
    config = load_run_config(layers)
    assert (config.arch.name, config.sampler.batch) == ("baseline", 32)
