"""SCHP against a literal forward pass by tensor name and slow loops over pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from parser_checkpoints import random_tensors, use_width, write_pth

from reidkit.masks.labels import load_label_set
from reidkit.masks.parsers.base import ProcedureParser
from reidkit.masks.parsers.networks import build_procedure, torch_forward
from reidkit.masks.parsers.normalization import fold_batch_norm
from reidkit.masks.parsers.schp import Schp, SchpProcedure
from reidkit.masks.parsers.weights import load_schp

CPU = torch.device("cpu")
LIP = load_label_set("lip")
MEAN, STD = (0.406, 0.456, 0.485), (0.225, 0.224, 0.229)  # blue, green, red


def literal_forward(t: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The network, tensor by tensor, from the names and values in the authors' file."""

    def conv(x, name, **options):
        return F.conv2d(x, t[f"{name}.weight"], t.get(f"{name}.bias"), **options)

    def norm(x, name):
        def channels(tensor):
            return t[f"{name}.{tensor}"][None, :, None, None]

        scaled = (x - channels("running_mean")) / (channels("running_var") + 1e-5).sqrt()
        return scaled * (channels("weight").abs() + 1e-5) + channels("bias")

    def relu_norm(x, name):
        return norm(x, name).clamp(min=0)

    def leaky(x, name, **options):  # a convolution and its activated batch norm
        first, last = name.rsplit(".", 1)
        y = norm(conv(x, name, **options), f"{first}.{int(last) + 1}")
        return torch.where(y > 0, y, 0.01 * y)

    def resize(x, like):
        return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True)

    x = relu_norm(conv(x, "conv1", stride=2, padding=1), "bn1")
    x = relu_norm(conv(x, "conv2", padding=1), "bn2")
    x = relu_norm(conv(x, "conv3", padding=1), "bn3")
    x = F.max_pool2d(x, 3, 2, 1)
    stages = []
    for layer, blocks, stride, dilation in (
        (1, 3, 1, 1),
        (2, 4, 2, 1),
        (3, 23, 2, 1),
        (4, 3, 1, 2),
    ):
        for block in range(blocks):
            name, s = f"layer{layer}.{block}", stride if block == 0 else 1
            y = relu_norm(conv(x, f"{name}.conv1"), f"{name}.bn1")
            y = conv(y, f"{name}.conv2", stride=s, padding=dilation, dilation=dilation)
            y = norm(conv(relu_norm(y, f"{name}.bn2"), f"{name}.conv3"), f"{name}.bn3")
            if block == 0:
                x = norm(conv(x, f"{name}.downsample.0", stride=s), f"{name}.downsample.1")
            x = (x + y).clamp(min=0)
        stages.append(x)
    x1, x2, x3, x4 = stages
    pyramid = []
    for i, bins in enumerate((1, 2, 3, 6)):
        pooled = F.adaptive_avg_pool2d(x4, bins)
        pyramid.append(resize(leaky(pooled, f"context_encoding.stages.{i}.1"), x4))
    context = leaky(torch.cat([*pyramid, x4], 1), "context_encoding.bottleneck.0", padding=1)
    wide = resize(leaky(context, "decoder.conv1.0"), x1)
    parsing = torch.cat([wide, leaky(x1, "decoder.conv2.0")], 1)
    parsing = leaky(leaky(parsing, "decoder.conv3.0"), "decoder.conv3.2")
    edges = [resize(leaky(x, f"edge.conv{i}.0"), x1) for i, x in enumerate((x1, x2, x3), start=1)]
    return conv(leaky(torch.cat([parsing, *edges], 1), "fushion.0"), "fushion.3")


@pytest.mark.parametrize(("classes", "side"), [(20, 97), (18, 64), (7, 50)])
def test_scores_equal_a_literal_forward_pass(tmp_path: Path, monkeypatch, classes: int, side: int):
    use_width(monkeypatch, 16)
    tensors = random_tensors("schp-lip", width=16, num_classes=classes, seed=side)
    network = load_schp(write_pth(tmp_path / "a.pth", tensors), classes).double()
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    literal = {k.removeprefix("module."): torch.from_numpy(v).double() for k, v in tensors.items()}
    expected = literal_forward(literal, x)
    found = network(x)
    assert found.shape == (2, classes, -(-side // 4), -(-side // 4))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize(("classes", "parameters"), [(20, 66723928), (18, 66722900), (7, 66717246)])
def test_parameters_are_the_published_number_less_the_training_heads(classes: int, parameters: int):
    with torch.device("meta"):
        network = Schp(classes)
    heads = (256 * classes + classes) + (2 * 256 * 9 + 2) + (2 * 6 + 2)
    assert sum(p.numel() for p in network.parameters()) + heads == parameters


@pytest.mark.parametrize(
    ("side", "sizes"),
    [(473, (237, 119, 119, 60, 30, 30, 119)), (512, (256, 128, 128, 64, 32, 32, 128))],
)
def test_every_layer_has_the_published_size(side: int, sizes: tuple[int, ...]):
    with torch.device("meta"):
        network = Schp(20)
    found = {}
    for name, module in network.named_modules():
        module.register_forward_hook(
            lambda module, inputs, output, name=name: found.update({name: tuple(output.shape)})
        )
    network(torch.empty(2, 3, side, side, device="meta"))
    half, quarter, _, eighth, sixteenth, _, head = sizes
    expected = {
        "bn3": (128, half), "layer1": (256, quarter), "layer2": (512, eighth),
        "layer3": (1024, sixteenth), "layer4": (2048, sixteenth),
        "context_encoding.stages.0": (512, 1), "context_encoding.stages.3": (512, 6),
        "context_encoding": (512, sixteenth), "decoder.conv2": (48, quarter),
        "decoder": (256, quarter), "edge": (768, quarter), "fushion": (20, head),
    }  # fmt: skip
    for name, (channels, size) in expected.items():
        assert found[name] == (2, channels, size, size), name


def test_folded_batch_normalisation_changes_scores_by_rounding_only(tmp_path: Path, monkeypatch):
    use_width(monkeypatch, 16)
    tensors = random_tensors("schp-lip", width=16)
    network = load_schp(write_pth(tmp_path / "a.pth", tensors), 20).double()
    folded = fold_batch_norm(network)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())
    x = torch.randn(1, 3, 97, 97, dtype=torch.float64)
    torch.testing.assert_close(folded(x), network(x), rtol=1e-11, atol=1e-11)
    x, network = x.float(), network.float()
    difference = (torch_forward(network, CPU, "fp32")(x) - network(x)).abs().max()
    assert difference < 1e-5 * network(x).abs().max()


SIZES = [(2, 2), (1, 1), (1, 9), (9, 1), (16, 8), (8, 16), (33, 33), (41, 23), (100, 37), (64, 128)]
SIDE = 33


def slow_warp(image: np.ndarray, *, out: tuple[int, int], matrix: tuple[float, float, float]):
    """OpenCV 4's linear warpAffine on its grid of 1/32 pixel, one pixel after another.

    Args:
        matrix: m00 = m11, m02, m12 from the output's to the input's pixels.
    """
    scale, m02, m12 = matrix
    warped = np.zeros((*out, *image.shape[2:]), np.float64)
    for y in range(out[0]):
        for x in range(out[1]):
            X = (int(np.rint(m02 * 1024)) + 16 + int(np.rint(scale * x * 1024))) >> 5
            Y = (int(np.rint((scale * y + m12) * 1024)) + 16) >> 5
            for row, wy in ((Y >> 5, 32 - (Y & 31)), ((Y >> 5) + 1, Y & 31)):
                for column, wx in ((X >> 5, 32 - (X & 31)), ((X >> 5) + 1, X & 31)):
                    if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                        warped[y, x] += image[row, column].astype(np.float64) * (wy * wx)
    if image.dtype == np.uint8:
        return ((warped + 512) // 1024).astype(np.uint8)
    return warped / 1024


def warp_matrix(size: tuple[int, int]) -> tuple[float, float, float]:
    h, w = size
    k, r = max(h - 1, w - 1, 1) / (SIDE - 1), (SIDE - 1) / 2
    return k, (w - 1) / 2 - r * k, (h - 1) / 2 - r * k


def inverse_matrix(size: tuple[int, int]) -> tuple[float, float, float]:
    h, w = size
    k, r = max(h - 1, w - 1, 1) / (SIDE - 1), (SIDE - 1) / 2
    return 1 / k, r - (w - 1) / 2 / k, r - (h - 1) / 2 / k


def sampled_image(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, (*size, 3), np.uint8)


def procedure(label_set: str = "lip") -> SchpProcedure:
    built = build_procedure("schp", label_set, SIDE)
    assert isinstance(built, SchpProcedure)
    return built


@pytest.mark.parametrize("size", SIZES)
def test_the_networks_input_is_opencvs_warp_of_the_image(size: tuple[int, int]):
    image, seen = sampled_image(size), []

    def forward(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return torch.zeros(len(x), 20, 9, 9)

    procedure().label_maps([image], forward, CPU)
    warped = slow_warp(image, out=(SIDE, SIDE), matrix=warp_matrix(size))
    expected = (warped[:, :, ::-1] / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    np.testing.assert_allclose(seen[0][0].numpy().transpose(1, 2, 0), expected, rtol=0, atol=1e-6)


def test_the_corners_of_the_image_are_the_corners_of_the_input():
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[0, 0], image[-1, -1], image[0, -1] = 255, 128, 64
    square = slow_warp(image, out=(SIDE, SIDE), matrix=warp_matrix((SIDE, SIDE)))
    np.testing.assert_array_equal(square, image)


@pytest.mark.parametrize("size", SIZES)
def test_labels_are_those_of_the_scores_warped_back(size: tuple[int, int]):
    scores = torch.randn(1, 20, 9, 9, generator=torch.Generator().manual_seed(0))
    (found,) = procedure().label_maps([sampled_image(size)], lambda x: scores, CPU)
    large = F.interpolate(scores.double(), size=(SIDE, SIDE), mode="bilinear", align_corners=True)
    back = np.stack(
        [slow_warp(plane, out=size, matrix=inverse_matrix(size)) for plane in large[0].numpy()]
    )
    assert found.shape == size and found.dtype == np.uint8
    best = np.sort(back, axis=0)
    clear = best[-1] - best[-2] > 1e-5
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], back.argmax(axis=0)[clear])


def test_equal_scores_give_the_first_label():
    (found,) = procedure().label_maps(
        [sampled_image((9, 5))], lambda x: x.new_ones(1, 20, 9, 9), CPU
    )
    assert (found == 0).all()


def test_mirrored_scores_are_mirrored_back_with_left_and_right_swapped():
    # the network says left-arm (14) in the image's left half and right-arm (15) in its right,
    # whatever it sees: so in the mirrored input it is consistent with the image after the swap
    scores = torch.zeros(1, 20, 9, 9)
    scores[:, 14, :, :4] = scores[:, 15, :, 5:] = 1
    scores[:, 0] = 0.1
    averaged = procedure().averaged(None, True)
    (found,) = averaged.label_maps(
        [sampled_image((33, 33))], lambda x: scores.expand(len(x), -1, -1, -1), CPU
    )
    assert (found[:, :12] == 14).all() and (found[:, -12:] == 15).all()


def test_scales_and_mirror_are_averaged_as_evaluate_py_does():
    """Each pass by hand: resized input, mean with the mirrored pass, back to the input's size."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(20, 3, 3, 3, generator=generator)

    def forward(x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, weight, stride=4, padding=1)

    def resize(x: torch.Tensor, side: int) -> torch.Tensor:
        return F.interpolate(x, size=(side, side), mode="bilinear", align_corners=True)

    size = (50, 21)
    image = sampled_image(size)
    warped = slow_warp(image, out=(SIDE, SIDE), matrix=warp_matrix(size))[:, :, ::-1]
    normalised = (torch.from_numpy(warped / 255.0) - torch.tensor(MEAN)) / torch.tensor(STD)
    x = normalised.permute(2, 0, 1)[None].float()
    swap = [*range(14), 15, 14, 17, 16, 19, 18]
    total = torch.zeros(1, 20, SIDE, SIDE)
    for scale in (1.0, 0.75, 1.5):
        y = resize(x, int(SIDE * scale))
        mean = (forward(y) + forward(y.flip(3))[:, swap].flip(3)) / 2
        total += resize(mean, SIDE) / 3
    back = np.stack(
        [slow_warp(p, out=size, matrix=inverse_matrix(size)) for p in total[0].double().numpy()]
    )
    averaged = procedure().averaged((1.0, 0.75, 1.5), True)
    (found,) = averaged.label_maps([image], forward, CPU)
    best = np.sort(back, axis=0)
    clear = best[-1] - best[-2] > 1e-4
    assert clear.mean() > 0.98
    np.testing.assert_array_equal(found[clear], back.argmax(axis=0)[clear])


def test_images_of_all_sizes_share_batches():
    weight = torch.randn(20, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    batches = []

    def forward(x: torch.Tensor) -> torch.Tensor:
        batches.append(len(x))
        return F.conv2d(x, weight, stride=4, padding=1)

    parser = ProcedureParser(
        name="schp-lip", labels=LIP, procedure=procedure(), forward=forward, device=CPU, batch=4,
        facts=(),
    )  # fmt: skip
    images = [sampled_image(size) for size in SIZES]
    together = parser.label_maps(images)
    assert batches == [4, 4, 2]
    assert [m.shape for m in together] == SIZES
    for image, label_map in zip(images, together, strict=True):
        np.testing.assert_array_equal(parser.label_maps([image])[0], label_map)
    assert parser.label_maps([]) == []


def test_atrs_labels_swap_by_name_and_pascals_stay():
    atr = list(range(18))
    for left, right in ((9, 10), (12, 13), (14, 15)):
        atr[left], atr[right] = right, left
    assert procedure("atr").swap == tuple(atr)
    assert procedure("pascal-person-part").swap == tuple(range(7))


def test_bf16_gives_nearly_the_same_scores(tmp_path: Path, monkeypatch):
    use_width(monkeypatch, 16)
    network = load_schp(write_pth(tmp_path / "a.pth", random_tensors("schp-lip", width=16)), 20)
    x = torch.randn(1, 3, 97, 97, generator=torch.Generator().manual_seed(0))
    exact, rounded = (torch_forward(network, CPU, p)(x) for p in ("fp32", "bf16"))
    assert rounded.dtype == torch.float32
    assert (rounded - exact).norm() < 0.1 * exact.norm()
