"""Cores and threads of a process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from reidkit import device
from reidkit.device import torch_device, usable_cores
from reidkit.runtime.execution import Execution


@pytest.fixture
def quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a container's system says of its processor time; the process may use eight cores."""
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    earlier = (tmp_path / "cpu.cfs_quota_us", tmp_path / "cpu.cfs_period_us")
    monkeypatch.setattr(device, "CPU_QUOTAS", ((tmp_path / "cpu.max",), earlier))
    return tmp_path / "cpu.max"


@pytest.fixture(autouse=True)
def torch_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 1),
        ("50000 100000\n", 1),
        ("1600000 100000\n", 8),
        ("max 100000\n", 8),
        ("", 8),
        ("100000 0\n", 8),
    ],
)
def test_a_container_has_as_many_cores_as_its_quota(quota: Path, text: str, cores: int) -> None:
    quota.write_text(text)
    assert usable_cores() == cores
    assert Execution().cores == cores
    assert Execution(threads=5).cores == 5


@pytest.mark.parametrize(("text", "cores"), [("200000\n", 2), ("-1\n", 8)])
def test_so_it_has_with_the_first_version_of_cgroups(quota: Path, text: str, cores: int) -> None:
    quota.with_name("cpu.cfs_quota_us").write_text(text)
    quota.with_name("cpu.cfs_period_us").write_text("100000\n")
    assert usable_cores() == cores


def test_pytorch_has_no_more_threads_than_a_container_has_cores(quota: Path) -> None:
    torch.set_num_threads(4)
    quota.write_text("300000 100000\n")
    torch_device("cpu")
    assert torch.get_num_threads() == 3
    torch.set_num_threads(1)  # as OMP_NUM_THREADS=1 asks
    torch_device("cpu")
    assert torch.get_num_threads() == 1
