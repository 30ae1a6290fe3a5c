"""JPPNet against a literal forward pass by variable name and slow loops over pixels."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from parser_checkpoints import random_tensors, use_width, write_bundle

from reidkit.masks.parsers.jppnet import JppNet, JppnetProcedure
from reidkit.masks.parsers.networks import build_procedure, torch_forward
from reidkit.masks.parsers.weights import load_jppnet

CPU = torch.device("cpu")
MEAN = (104.00698793, 116.66876762, 122.67891434)  # blue, green, red
SWAP = [*range(14), 15, 14, 17, 16, 19, 18]


def same(n: int, k: int, stride: int) -> tuple[int, int]:
    """Samples that TensorFlow's SAME padding adds before and after."""
    total = max((math.ceil(n / stride) - 1) * stride + k - n, 0)
    return total // 2, total - total // 2


def literal_forward(t: dict[str, torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
    """The three parsing outputs, variable by variable, from the names and values in the authors'
    checkpoint (kernels: height, width, inputs, outputs)."""

    def conv(x, kernel, bias=None, *, stride=1, dilation=1):
        weight = t[kernel].permute(3, 2, 0, 1)
        k = weight.shape[2]
        if stride > 1:
            x = F.pad(x, (*same(x.shape[3], k, stride), *same(x.shape[2], k, stride)))
            padding = 0
        else:
            padding = dilation * (k - 1) // 2
        return F.conv2d(x, weight, None if bias is None else t[bias], stride, padding, dilation)

    def norm(x, name):
        gamma, beta, mean, variance = (
            t[f"{name}/{n}"][None, :, None, None]
            for n in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return (x - mean) / (variance + 1e-3).sqrt() * gamma + beta

    def branch(x, block, name, **options):
        return norm(conv(x, f"res{block}_{name}/weights", **options), f"bn{block}_{name}")

    def head(x, name, **options):
        return conv(x, f"{name}/w", f"{name}/b", **options)

    x = norm(conv(x, "conv1/weights", stride=2), "bn_conv1").clamp(min=0)
    pads = (*same(x.shape[3], 3, 2), *same(x.shape[2], 3, 2))
    x = F.max_pool2d(F.pad(x, pads, value=-math.inf), 3, 2)
    blocks = ["2a", "2b", "2c", "3a", "3b1", "3b2", "3b3", "4a"]
    blocks += [*(f"4b{i}" for i in range(1, 23)), "5a", "5b", "5c"]
    for block in blocks:
        stride = 2 if block == "3a" else 1
        dilation = {"4": 2, "5": 4}.get(block[0], 1)
        y = branch(x, block, "branch2a", stride=stride).clamp(min=0)
        y = branch(y, block, "branch2b", dilation=dilation).clamp(min=0)
        y = branch(y, block, "branch2c")
        if block[1] == "a":
            x = branch(x, block, "branch1", stride=stride)
        x = (x + y).clamp(min=0)
        if block == "4b22":
            r4 = x
    parsing1 = sum(
        conv(x, f"fc1_human_c{i}/weights", f"fc1_human_c{i}/biases", dilation=6 * (i + 1))
        for i in range(4)
    )
    p = x
    for name in ("res5d_branch2a_parsing", "res5d_branch2b_parsing"):
        p = conv(p, f"{name}/weights", f"{name}/biases").clamp(min=0)
    q = r4
    for i in range(1, 7):
        q = head(q, f"fc1_pose/pose_conv{i}").clamp(min=0)
    pose1 = head(head(q, "fc1_pose/pose_conv7").clamp(min=0), "fc1_pose/pose_conv8")

    def remaps(name, pose, parsing):
        return (
            head(pose, f"{name}/pose_remap").clamp(min=0),
            head(parsing, f"{name}/parsing_remap").clamp(min=0),
        )

    pose, parsing = remaps("fc2_pose", pose1, parsing1)
    y = torch.cat([pose, parsing, q], 1)
    for i in range(1, 6):
        y = head(y, f"fc2_pose/conv{i}").clamp(min=0)
    pose2 = head(y, "fc2_pose/conv6")

    outputs = [parsing1]
    for name, pose in (("fc2_parsing", pose1), ("fc3_parsing", pose2)):
        pose, parsing = remaps(name, pose, outputs[-1])
        p = torch.cat([parsing, pose, p], 1)
        for i in range(1, 5):
            p = head(p, f"{name}/parsing_conv{i}").clamp(min=0)
        y = head(p, f"{name}/parsing_conv5").clamp(min=0)
        outputs.append(
            sum(head(y, f"{name}/parsing_human{i}", dilation=6 * i) for i in range(1, 5))
        )
    return outputs


@pytest.mark.parametrize("size", [(96, 96), (64, 72), (75, 89)])
def test_scores_equal_a_literal_forward_pass(tmp_path: Path, monkeypatch, size: tuple[int, int]):
    use_width(monkeypatch, 16)
    tensors = random_tensors("jppnet", width=16, seed=size[0])
    network = load_jppnet(write_bundle(tmp_path / "JPPNet-s2", tensors)).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = literal_forward({k: torch.from_numpy(v).double() for k, v in tensors.items()}, x)
    found = network.parsings(x)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == (2, 20, *(-(-side // 8) for side in size))
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10 * theirs.abs().max().item())
    torch.testing.assert_close(network(x), sum(found) / 3)


def test_parameters_are_the_published_number():
    with torch.device("meta"):
        network = JppNet()
    assert sum(p.numel() for p in network.parameters()) == 107_817_296


@pytest.mark.parametrize(("side", "eighth"), [(384, 48), (288, 36), (480, 60)])
def test_every_layer_has_the_published_size(side: int, eighth: int):
    with torch.device("meta"):
        network = JppNet()
    found = {}
    for name, module in network.named_modules():
        module.register_forward_hook(
            lambda module, inputs, output, name=name: found.update(
                {name: tuple(output.shape) if isinstance(output, torch.Tensor) else output}
            )
        )
    network(torch.empty(1, 3, side, side, device="meta"))
    expected = {
        "conv1": (64, side // 2), "stage2": (256, side // 4), "stage3": (512, eighth),
        "stage4": (1024, eighth), "stage5": (2048, eighth), "fc1_human": (20, eighth),
        "res5d.branch2b_parsing": (256, eighth), "fc1_pose.pose_conv6": (256, eighth),
        "fc2_pose": (16, eighth), "fc2_parsing.parsing_conv4": (256, eighth),
        "fc3_parsing.parsing_human": (20, eighth),
    }  # fmt: skip
    for name, (channels, size) in expected.items():
        assert found[name] == (1, channels, size, size), name
    blocks = [name.split(".")[1] for name in found if name.count(".") == 1 and "stage" in name]
    assert (
        len(blocks) == 33
        and blocks[3:5] == ["3a", "3b1"]
        and blocks[-4:] == ["4b22", "5a", "5b", "5c"]
    )


def test_folded_batch_normalisation_changes_scores_by_rounding_only(tmp_path: Path, monkeypatch):
    use_width(monkeypatch, 16)
    tensors = random_tensors("jppnet", width=16)
    network = load_jppnet(write_bundle(tmp_path / "JPPNet-s2", tensors))
    x = torch.randn(1, 3, 96, 96)
    difference = (torch_forward(network, CPU, "fp32")(x) - network(x)).abs().max()
    assert difference < 1e-5 * network(x).abs().max()


def slow_resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """TensorFlow 1's bilinear resize of [H, W, C], one pixel after another."""
    H, W = image.shape[:2]
    scale_y, scale_x = np.float32(H) / np.float32(size[0]), np.float32(W) / np.float32(size[1])
    resized = np.zeros((*size, image.shape[2]))
    for y in range(size[0]):
        for x in range(size[1]):
            v, u = np.float32(y) * scale_y, np.float32(x) * scale_x
            top, left = int(v), int(u)
            bottom, right = min(top + 1, H - 1), min(left + 1, W - 1)
            above = image[top, left] + (image[top, right] - image[top, left]) * (u - left)
            below = image[bottom, left] + (image[bottom, right] - image[bottom, left]) * (u - left)
            resized[y, x] = above + (below - above) * (v - top)
    return resized


SIZES = [(1, 1), (2, 7), (16, 8), (9, 31), (24, 24), (50, 21), (64, 128)]


def sampled_image(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, (*size, 3), np.uint8)


def procedure() -> JppnetProcedure:
    built = build_procedure("jppnet", "lip", 24)
    assert isinstance(built, JppnetProcedure)
    return built


@pytest.mark.parametrize("size", SIZES)
def test_the_network_sees_the_image_and_its_mirror_image_at_three_sizes(size: tuple[int, int]):
    image, seen = sampled_image(size), []

    def forward(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return torch.zeros(len(x), 20, x.shape[2] // 8, x.shape[3] // 8)

    procedure().label_maps([image], forward, CPU)
    assert [tuple(x.shape) for x in seen] == [(2, 3, s, s) for s in (24, 18, 30)]
    centred = image[:, :, ::-1].astype(np.float32) - np.float32(MEAN)
    for x in seen:
        side = x.shape[2]
        for found, original in ((x[0], centred), (x[1], centred[:, ::-1])):
            expected = slow_resize(original.astype(np.float64), (side, side))
            np.testing.assert_allclose(found.numpy().transpose(1, 2, 0), expected, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_labels_are_those_of_the_mean_of_all_scales_and_both_halves(size: tuple[int, int]):
    weight = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(0)) / 100
    image = sampled_image(size)

    def forward(x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, weight, stride=8)

    (found,) = procedure().label_maps([image], forward, CPU)
    centred = (image[:, :, ::-1].astype(np.float32) - np.float32(MEAN)).astype(np.float64)
    halves = []
    for original in (centred, centred[:, ::-1]):
        maps = []
        for side in (24, 18, 30):
            x = torch.from_numpy(slow_resize(original, (side, side))).permute(2, 0, 1)[None]
            maps.append(slow_resize(forward(x.float())[0].permute(1, 2, 0).numpy(), size))
        halves.append(np.mean(maps, axis=0))
    mean = (halves[0] + halves[1][:, ::-1][:, :, SWAP]) / 2
    best = np.sort(mean, axis=2)
    clear = best[..., -1] - best[..., -2] > 1e-4
    assert found.shape == size and found.dtype == np.uint8
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], mean.argmax(axis=2)[clear])


def test_left_stays_left_in_the_mirrored_half():
    scores = torch.zeros(1, 20, 3, 4)
    scores[:, 16, :, :2] = scores[:, 17, :, 2:] = 1  # left-leg on the left whatever it sees
    (found,) = procedure().label_maps(
        [sampled_image((16, 8))], lambda x: scores.expand(len(x), -1, -1, -1), CPU
    )
    assert (found[:, :3] == 16).all() and (found[:, -2:] == 17).all()


def test_fast_mode_is_one_pass():
    fast = procedure().averaged((1.0,), False)
    batches = []

    def forward(x: torch.Tensor) -> torch.Tensor:
        batches.append(tuple(x.shape))
        return torch.zeros(len(x), 20, 3, 3)

    maps = fast.label_maps([sampled_image(size) for size in SIZES], forward, CPU)
    assert batches == [(7, 3, 24, 24)]
    assert [m.shape for m in maps] == SIZES
