"""Learning rates of every epoch, as the recipes' definitions give them."""

import pytest
import torch
from torch import nn

from reidkit.config import OptimConfig, ScheduleConfig
from reidkit.errors import ConfigError
from reidkit.training.optim import (
    build_ema,
    build_optimizer,
    learning_rate,
    resolve_precision,
    set_learning_rate,
)


def test_iaunet_drops_tenfold_at_20_and_40() -> None:
    schedule = ScheduleConfig(epochs=60, milestones=(20, 40))
    rates = [learning_rate(schedule, 3.5e-4, epoch) for epoch in range(60)]
    assert rates == pytest.approx([3.5e-4] * 20 + [3.5e-5] * 20 + [3.5e-6] * 20)


def test_rga_warms_up_over_20_epochs_and_halves_every_40_from_80_to_360() -> None:
    """Epoch e < 20: 8e-6 + (8e-4 - 8e-6) * e / 20; the last rate is 3.125e-6."""
    schedule = ScheduleConfig(
        epochs=600,
        milestones=tuple(range(80, 361, 40)),
        gamma=0.5,
        warmup_epochs=20,
        warmup_lr=8e-6,
    )
    rates = [learning_rate(schedule, 8e-4, epoch) for epoch in range(600)]
    assert rates[:20] == pytest.approx([8e-6 + (8e-4 - 8e-6) * e / 20 for e in range(20)])
    assert rates[20] == rates[79] == 8e-4
    assert rates[80] == pytest.approx(4e-4)
    assert rates[-1] == pytest.approx(3.125e-6)


def test_cosine_decays_from_the_peak_to_zero() -> None:
    schedule = ScheduleConfig(epochs=10, kind="cosine")
    assert learning_rate(schedule, 1.0, 0) == 1.0
    assert learning_rate(schedule, 1.0, 5) == pytest.approx(0.5)
    assert learning_rate(schedule, 1.0, 10) == pytest.approx(0.0)


def test_the_backbone_may_have_a_smaller_learning_rate() -> None:
    """PFSA: 0.01 for the backbone, 0.1 for new layers."""
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    optimizer = build_optimizer(model, OptimConfig(name="sgd", lr=0.1, backbone_factor=0.1))
    set_learning_rate(optimizer, 0.05)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.005, 0.05])
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 2]
    assert isinstance(optimizer, torch.optim.SGD)


def test_the_moving_average_starts_at_the_initial_weights() -> None:
    model = nn.Sequential(nn.Linear(3, 1, bias=False), nn.BatchNorm1d(1))
    expected = model[0].weight.detach().clone()
    ema = build_ema(model, 0.9)
    assert ema is not None
    for step in range(3):
        with torch.no_grad():
            model[0].weight.add_(step + 1.0)
            model[1].running_mean.add_(1.0)
        ema.update_parameters(model)
        expected = 0.9 * expected + 0.1 * model[0].weight.detach()
    torch.testing.assert_close(ema.module[0].weight.detach(), expected)
    assert ema.module[1].running_mean == model[1].running_mean  # statistics are not averaged
    assert build_ema(model, 0.0) is None


@pytest.mark.parametrize(
    ("capabilities", "size", "auto"),
    [
        ({"amx_bf16": True}, (256, 128), "bf16"),
        ({"amx_bf16": True}, (64, 32), "fp32"),
        ({"avx512_bf16": True}, (64, 32), "bf16"),
        ({}, (256, 128), "fp32"),
    ],
)
def test_auto_is_bf16_where_a_cpu_computes_it_natively_and_rightly(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], size: tuple[int, int], auto: str
) -> None:
    monkeypatch.setattr("reidkit.device._cpu_capabilities", lambda: capabilities)
    cpu = torch.device("cpu")
    assert resolve_precision("auto", cpu, size) == auto
    assert resolve_precision("fp32", cpu, size) == "fp32"
    if "amx_bf16" in capabilities and min(size) < 64:
        with pytest.raises(ConfigError, match=r"bf16 convolutions are wrong on this CPU.*fp32"):
            resolve_precision("bf16", cpu, size)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 4), (16, 8)])
def test_bf16_convolutions_of_the_smallest_accepted_image_are_right(
    height: int, width: int
) -> None:
    """The input of the last stage for a shorter side of 64 pixels: MIN_BF16_SIDE."""
    torch.manual_seed(0)
    conv = nn.Conv2d(256, 512, 3, 2, 1, bias=False).to(memory_format=torch.channels_last)
    x = torch.randn(16, 256, height, width).to(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = conv(x)
        for _ in range(4):
            with torch.autocast("cpu", torch.bfloat16):
                found = conv(x).float()
            assert (found - expected).norm() < 0.01 * expected.norm()
